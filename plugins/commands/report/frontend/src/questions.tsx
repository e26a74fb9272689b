// Questions x systems: right, wrong, graded; with filters, order, subsets, the oracle and the regret of selectors.
import { useMemo } from "preact/hooks";
import { chosen, KIND_NAMES, mean, oracle, SORTS, STATES } from "./filter";
import { plural, score } from "./format";
import { breakable, Brief, Choose, Mark, Rows, systems } from "./parts";
import { href, type Route, select } from "./route";
import { byOutcome, groupsOf, isFiltered, scopeOf } from "./scope";
import type { Section } from "./types";
import { pick } from "./verdict";

export function Filters({ section, route, found }: { section: Section; route: Route; found: number }) {
  const { given } = route, q = section.questions;
  const change = (to: Record<string, string | undefined>) => select(route, to);
  const names: [string, string][] = [["", "any"], ...systems(section)];
  const active = ["in", "find", "kind", "is", "cell", "sort"].some((k) => given[k]);
  return (
    <form class="filters" role="search" onSubmit={(e) => e.preventDefault()}>
      <label class="choose find"><span>Find</span>
        <input id="find" type="search" value={given.find ?? ""} placeholder="text or id" onInput={(e) => change({ find: e.currentTarget.value })} />
      </label>
      {q.subsets.length > 1 && <Choose label="Subset" value={given.in ?? ""} options={[["", "all"], ...q.subsets.map((s): [string, string] => [s, s || "(none)"])]} onChange={(v) => change({ in: v })} />}
      <Choose label="Where" value={given.kind ?? ""} options={[["", "all questions"], ...Object.entries(KIND_NAMES)]} onChange={(v) => change({ kind: v })} />
      <Choose label="System" value={given.of ?? ""} options={names} onChange={(v) => change({ of: v, is: v ? given.is || "wrong" : "" })} />
      {given.of && <Choose label="is" value={given.is ?? ""} options={[["", "anything"], ...Object.entries(STATES)]} onChange={(v) => change({ is: v })} />}
      <Choose label="Order" value={given.sort ?? ""} options={[...Object.entries(SORTS), ...systems(section).map(([v, n]): [string, string] => [v, `worst of ${n}`])]} onChange={(v) => change({ sort: v })} />
      <span class="found" role="status">
        {plural(found, "question")}
        {given.cell && given.a && given.b && <> {given.cell} by <bdi>{given.b}</bdi> from <bdi>{given.a}</bdi></>}
        {active && <button type="button" class="plain clear" onClick={() => change({ in: "", find: "", kind: "", is: "", of: "", cell: "", a: "", b: "", sort: "" })}>clear</button>}
      </span>
    </form>
  );
}

export function QuestionsView({ section, route }: { section: Section; route: Route }) {
  const { given } = route, q = section.questions;
  const found = useMemo(() => chosen(section, given), [section, JSON.stringify(given)]);
  const ceiling = useMemo(() => oracle(section), [section]);
  const filtered = isFiltered(given) && !section.units, groups = filtered ? groupsOf(section, given) : section.rows.map((r) => r.group);
  const top = mean(ceiling, found);
  const order = section.rows.map((_, i) => i).reverse();
  if (!q.ids.length) return <p class="lead quiet">No question was recorded: the runs were stopped before their first answer.</p>;
  const width = { "--systems": String(order.length) } as Record<string, string>;
  const header = (
    <div class="columns" style={width}>
      <span class="index">#</span>
      <span class="begins"><span>Question</span><small>mean of these</small><small title="systems that share a letter cannot be told apart on these questions">groups</small>{top != null && <small title="oracle minus the mean: what choosing among the models' replies would still gain">regret</small>}</span>
      {order.map((i) => {
        const m = mean(q.scores[i], found), s = section.rows[i];
        return (
          <span class={`column ${s.role}`} title={s.name}>
            <b><Brief name={s.name} /></b>
            <small>{m == null ? "–" : short(m)}</small>
            <small class="group" title={groups[i]}>{groups[i] || "\u00a0"}</small>
            {top != null && <small class="regret">{m == null || s.role !== "method" ? "\u00a0" : short(top - m)}</small>}
          </span>
        );
      })}
      {top != null && <span class="column oracle" title="the best reply of any single model"><b>oracle</b><small>{short(top)}</small><small>{"\u00a0"}</small><small>{"\u00a0"}</small></span>}
    </div>
  );
  return (
    <>
      <Filters section={section} route={route} found={found.length} />
      {filtered && found.length > 0 && (
        <p class="scope">
          <a href={href("verdict", scopeOf(given))}>Compare the systems on {found.length === 1 ? "this question" : `these ${plural(found.length, "question")}`}</a>
          {byOutcome(given) && <span class="quiet"> They are chosen by how systems did on them: means and letters describe them and prove nothing of others.</span>}
        </p>
      )}
      <Rows tall count={found.length} height={30} label="matrix" header={header} class="matrix" empty="No question is like that; clear the filters."
        open={(i) => { location.hash = href("question", given, q.ids[found[i]]); }}
        row={(i) => {
          const at = found[i];
          return (
            <div class="columns" style={width}>
              <span class="index" role="gridcell">{at}</span>
              <span class="begins" role="gridcell" dir="auto" title={q.ids[at]}>{q.begins[at] || q.ids[at]}</span>
              {order.map((s) => <span class="column" role="gridcell" title={`${section.rows[s].name}: ${q.answers[s][at] || "no answer"}`}><Mark score={q.scores[s][at]} mark={q.marks[s][at]} /></span>)}
              {top != null && <span class="column oracle" role="gridcell"><Mark score={ceiling[at]} /></span>}
            </div>
          );
        }} />
      <p class="legend">
        {section.binary ? <><Mark score={1} word /> <Mark score={0} word /></> : <><Mark score={1} word /> <Mark score={0.5} word /> <Mark score={0} word /></>}
        <Mark score={0} mark="u" word /> <Mark score={0} mark="c" word /> <Mark score={null} mark="f" word /> <Mark score={null} mark="-" word />
      </p>
      <Subsets section={section} route={route} order={order} />
    </>
  );
}

const short = (v: number) => v.toFixed(2).replace(/^(-?)0\./, "$1.");

function Subsets({ section, route, order }: { section: Section; route: Route; order: number[] }) {
  const q = section.questions;
  if (q.subsets.length < 2) return null;
  const members = q.subsets.map((_, s) => q.ids.map((_, i) => i).filter((i) => q.subset[i] === s));
  return (
    <>
      <h2>By subset</h2>
      <div class="scroll">
        <table class="subsets">
          <thead><tr><th scope="col">Subset</th><th class="num" scope="col">n</th>{order.map((i) => <th scope="col" class="num" title={section.rows[i].name}>{breakable(section.rows[i].name)}</th>)}</tr></thead>
          <tbody>
            {q.subsets.map((name, s) => {
              const means = order.map((i) => mean(q.scores[i], members[s])), most = Math.max(...means.map((m) => m ?? 0));
              return (
                <tr>
                  <th scope="row"><a href={href("questions", { ...pick(route.given), in: name })}><bdi>{name || "(none)"}</bdi></a></th>
                  <td class="num quiet">{members[s].length}{members[s].length < 20 ? " (few)" : ""}</td>
                  {means.map((m) => <td class={`num ${m === most ? "strong" : ""}`} style={{ background: `color-mix(in srgb, var(--right) ${Math.round((m ?? 0) * 28)}%, transparent)` }}>{score(m)}</td>)}
                </tr>
              );
            })}
          </tbody>
        </table>
      </div>
    </>
  );
}
