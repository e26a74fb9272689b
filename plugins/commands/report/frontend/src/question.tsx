// One question: what was asked, what is right, and what every system replied; the transcript of one of them.
import { useEffect, useState } from "preact/hooks";
import { askedOf, callsOf } from "./data";
import { chosen, indexOf } from "./filter";
import { Mark, Name, Said } from "./parts";
import { href, type Route, select } from "./route";
import { Noted, Spans, Transcript } from "./transcript";
import type { Asked, Call, Reply, Section } from "./types";

export function neighbours(section: Section, route: Route): [before: number, at: number, after: number, place: number, of: number] {
  const at = section.questions.ids.indexOf(route.question), list = chosen(section, route.given);
  const place = list.indexOf(at);
  return [place > 0 ? list[place - 1] : -1, at, place >= 0 && place < list.length - 1 ? list[place + 1] : -1, place, list.length];
}

export function QuestionView({ section, number, route }: { section: Section; number: number; route: Route }) {
  const [before, at, after, place, of] = neighbours(section, route);
  const [asked, setAsked] = useState<Asked | null | "reading" | Error>("reading");
  useEffect(() => {
    let current = true;
    setAsked("reading");
    if (at >= 0) askedOf(section, number, at).then((a) => current && setAsked(a), (e) => current && setAsked(e));
    return () => { current = false; };
  }, [section, number, at]);
  const q = section.questions, { given } = route;
  const back = given.from === "differences" || given.cell ? "differences" : "questions";
  if (at < 0) return <p class="lead quiet">This report has no question <bdi>{route.question}</bdi>. <a href={href("questions", {})}>All questions</a></p>;
  const link = (to: number) => href("question", given, q.ids[to]);
  return (
    <article class="question">
      <nav class="steps" aria-label="questions">
        <a href={href(back, given)}>← back to the list</a>
        <span class="quiet">{place >= 0 ? `${place + 1} of ${of.toLocaleString("en")}` : "not among those selected"}</span>
        {before >= 0 ? <a rel="prev" href={link(before)}>previous <kbd>k</kbd></a> : <span class="quiet">previous</span>}
        {after >= 0 ? <a rel="next" href={link(after)}>next <kbd>j</kbd></a> : <span class="quiet">next</span>}
      </nav>
      <h1><bdi>{q.ids[at]}</bdi></h1>
      <p class="quiet">question {at}{q.subsets[q.subset[at]] && <> in <a href={href("questions", { s: given.s, in: q.subsets[q.subset[at]] })}>{q.subsets[q.subset[at]]}</a></>}</p>
      {asked === "reading" ? <p class="quiet">reading …</p>
        : asked instanceof Error ? <p class="lead worse">{asked.message}</p>
        : asked == null ? <Scores section={section} at={at} />
        : <Whole section={section} number={number} route={route} at={at} asked={asked} />}
    </article>
  );
}

/** What is left where the replies had no room in the file. */
function Scores({ section, at }: { section: Section; at: number }) {
  const q = section.questions;
  return (
    <>
      <Said text={q.begins[at]} class="asked" />
      <p class="note">The replies to this question had no room in the file (<code>--size</code>). <code>moco read {section.runs[0].folder} {at}</code> shows them.</p>
      <ul class="plain-list">{[...section.rows].reverse().map((s) => {
        const i = indexOf(section, s.name);
        return <li><Mark score={q.scores[i][at]} mark={q.marks[i][at]} word /> <Name of={s} /> <bdi>{q.answers[i][at]}</bdi></li>;
      })}</ul>
    </>
  );
}

function Whole({ section, number, route, at, asked }: { section: Section; number: number; route: Route; at: number; asked: Asked }) {
  const { given } = route, several = section.seeds.length > 1;
  const order = section.runs.map((_, r) => r).sort((x, y) => section.runs[y].system - section.runs[x].system || section.runs[x].seed - section.runs[y].seed);
  const wanted = order.find((r) => section.rows[section.runs[r].system].name === given.run && (!given.seed || String(section.runs[r].seed) === given.seed));
  const known = order.filter((r) => asked.replies[r]);
  const first = wanted ?? known.find((r) => section.rows[section.runs[r].system].name === given.b) ?? known.find((r) => section.rows[section.runs[r].system].role === "method") ?? known[0];
  return (
    <>
      <div class="two">
        <section aria-label="question">
          {asked.system && <><h3>System</h3><Said text={asked.system} class="asked" /></>}
          {asked.history.map(([who, text]) => <><h3>{who}</h3><Said text={text} class="asked" /></>)}
          <h3>Question</h3>
          <Said text={asked.asked} class="asked" />
        </section>
        <section aria-label="reference">
          <h3>Reference</h3>
          {asked.references.length ? asked.references.slice(0, 50).map((r) => <Said text={String(r)} class="reference" />) : <p class="quiet">none recorded</p>}
          {asked.references.length > 50 && <p class="quiet">and {asked.references.length - 50} more</p>}
          {asked.choice != null && <p>choice {asked.choice} <span class="quiet">(from 0)</span></p>}
        </section>
      </div>
      <h2>Replies</h2>
      <div class="replies" role="tablist" aria-label="systems">
        {order.map((r) => {
          const run = section.runs[r], s = section.rows[run.system], reply = asked.replies[r];
          return (
            <button role="tab" aria-selected={r === first} class={`reply ${s.role}`} disabled={!reply}
              onClick={() => select(route, { run: s.name, seed: several ? String(run.seed) : undefined })}>
              <Mark score={reply?.score ?? null} mark={!reply ? "-" : reply.error ? "f" : reply.read !== "parsed" ? "u" : "."} />
              <span class="who"><Name of={s} plain />{several && <small> seed {run.seed}</small>}</span>
              <bdi class="short">{!reply ? "not recorded" : reply.error ? "failed" : reply.answer || "no answer read"}</bdi>
            </button>
          );
        })}
      </div>
      {first != null && asked.replies[first] && <Shown section={section} number={number} at={at} run={first} reply={asked.replies[first]!} asked={asked} key={`${at}.${first}`} />}
    </>
  );
}

function Shown({ section, number, at, run, reply, asked }: { section: Section; number: number; at: number; run: number; reply: Reply; asked: Asked }) {
  const [calls, setCalls] = useState<Call[] | null | "reading">("reading");
  useEffect(() => {
    let current = true;
    callsOf(section, number, at).then((c) => current && setCalls(c && c[run]), () => current && setCalls(null));
    return () => { current = false; };
  }, [section, number, at, run]);
  const s = section.rows[section.runs[run].system];
  return (
    <section class="shown" aria-label={`reply of ${s.name}`}>
      <header>
        <h3><Name of={s} /></h3>
        <p>
          <Mark score={reply.score} mark={reply.error ? "f" : reply.read !== "parsed" ? "u" : "."} word />
          {reply.score != null && !Number.isInteger(reply.score) && <> {reply.score.toFixed(3)}</>}
          {reply.read === "parsed" ? <> · read as <b><bdi>{reply.answer}</bdi></b></> : !reply.error && <> · nothing could be read ({reply.read || "unknown"})</>}
          {reply.finish === "length" && <> · cut off</>}{reply.abstained && <> · declined to answer</>}
          {typeof reply.seconds === "number" && <span class="quiet"> · {reply.seconds.toFixed(1)} s</span>}
        </p>
      </header>
      {reply.error ? <Said text={reply.error} class="worse" /> : reply.spans.length ? <Spans spans={reply.spans} pool={section.pool} /> : <Said text={reply.text || "(nothing)"} />}
      <Noted meta={reply.meta} pool={section.pool} title="What the method noted" />
      {Object.keys(reply.noted).length > 0 && <Noted meta={reply.noted} pool={section.pool} title="What the metric noted" />}
      <h3>Transcript</h3>
      {calls === "reading" ? <p class="quiet">reading …</p>
        : calls == null ? <p class="note">The transcripts of this question had no room in the file (<code>--size</code>). <code>moco read {section.runs[run].folder} {at}</code> shows them.</p>
        : <Transcript calls={calls} asked={asked} pool={section.pool} />}
    </section>
  );
}
