// A line that says which questions the numbers are about.
import { plural } from "./format";
import { href, type View } from "./route";
import { byOutcome, described, isFiltered, scoped, scopeOf } from "./scope";
import type { Section } from "./types";
import { pick } from "./verdict";

export function ScopeNote({ section, given, view }: { section: Section; given: Record<string, string>; view: View }) {
  if (!isFiltered(given)) return null;
  const { places, whole } = scoped(section, given), filters = scopeOf(given);
  const { s, a, b, cell } = given;
  return (
    <p class="scope" role="status">
      {whole ? <>Groups of questions are scored together here: these numbers are those of all of them, whatever is filtered.</>
        : <><strong>Only {plural(places.length, "question")} of {section.questions.ids.length.toLocaleString("en")}</strong>: <bdi>{described(given)}</bdi>.</>}{" "}
      <a href={href("questions", filters)}>change</a> <a href={href(view, { ...pick({ s }), a, b, cell })}>all questions</a>
      {!whole && byOutcome(given) && <span class="quiet"> They were chosen by how systems did on them: differences, p and letters describe these questions and prove nothing of others.</span>}
    </p>
  );
}
