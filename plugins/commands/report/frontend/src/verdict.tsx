// First view: what was found, every system with its interval, and which cannot be told apart.
import { scaleLinear } from "d3-scale";
import { useState } from "preact/hooks";
import { kind, p, percent, plural, range, score, signed, times } from "./format";
import { ownWarnings } from "./audit";
import { EmergenceTable, GridTables } from "./grid";
import { Facts, Name, Verdict, worded } from "./parts";
import { href } from "./route";
import { scoped } from "./scope";
import { ScopeNote } from "./scoped";
import type { Section, Summary, System } from "./types";

type Scale = (v: number) => number;

/** Methods, each followed by its controls, then the single models; the best first. */
function ordered(section: Section): System[] {
  const best = [...section.rows].sort((x, y) => (y.score?.mean ?? -1) - (x.score?.mean ?? -1));
  const controls = (of: string | null) => best.filter((s) => s.role === "control" && s.control_of === of);
  const methods = best.filter((s) => s.role === "method");
  const owned = methods.flatMap((m) => [m, ...controls(m.label)]);
  return [...owned, ...best.filter((s) => s.role === "control" && !owned.includes(s)), ...best.filter((s) => s.role === "baseline")];
}

export function VerdictView({ section: all, given, summary }: { section: Section; given: Record<string, string>; summary: Summary }) {
  const [open, setOpen] = useState<string | null>(null);
  const { section, whole } = scoped(all, given);
  const rows = ordered(section);
  const known = rows.flatMap((s) => (s.score ? [s.score.low, s.score.high] : []));
  const ends = [...known, ...(section.oracle == null ? [] : [section.oracle])];
  const scale = scaleLinear().domain(ends.length ? [Math.min(...ends), Math.max(...ends)] : [0, 1]).nice(6).range([0, 100]);
  if (scale.domain()[0] === scale.domain()[1]) scale.domain([scale.domain()[0] - 0.1, scale.domain()[1] + 0.1]);
  // the plot is about systems: chance far below them would only press them together
  const lines: [string, number | null][] = [["chance", section.chance != null && section.chance >= scale.domain()[0] ? section.chance : null], ["oracle", section.oracle]];
  const x: Scale = (v) => scale(v);
  const letters = [...new Set(rows.flatMap((s) => s.group.match(/\[\d+\]|./g) ?? []))].sort();
  const best = section.rows.find((r) => r.best_single);
  const controls = section.rows.some((r) => r.role === "control");
  const n = Math.max(0, ...rows.map((s) => s.score?.n ?? 0));
  const gaps = rows.some((s) => s.gap_closed != null);
  return (
    <>
      <ScopeNote section={all} given={given} view="verdict" />
      <Findings section={section} />
      <div class="scroll">
        <table class="forest">
          <caption class="unseen">Systems with scores, intervals and tests against the best single model</caption>
          <thead>
            <tr>
              <th scope="col">System</th>
              <th scope="col" class="plot"><Axis scale={scale} lines={lines} best={best?.score?.mean ?? null} /></th>
              <th scope="col" class="num">Score</th>
              <th scope="col" class="num" title="difference to the best single model on the same questions">vs best<small class="mid">95 % interval</small></th>
              <th scope="col" class="num wide" title="paired test against the best single model; below, corrected for all systems (Holm)">p<small>Holm</small></th>
              <th scope="col" class="mid" title="systems that share a letter cannot be told apart">Groups</th>
              {gaps && <th scope="col" class="num wide" title="share of the way from the best single model to the oracle">Gap closed</th>}
              {best && <th scope="col" class="num mid" title={`${section.cost_unit} per question, as multiples of the best single model's`}>Cost</th>}
              {whole && <th scope="col">Verdict</th>}
            </tr>
          </thead>
          <tbody>
            {rows.map((s) => [
              <tr key={s.name} class={`${s.role} ${s.best_single ? "best" : ""} ${open === s.name ? "open" : ""}`}>
                <th scope="row">
                  <button class="plain" aria-expanded={open === s.name} onClick={() => setOpen(open === s.name ? null : s.name)}>
                    {s.control_of && s.control ? <span class="name control" title={s.name}>{s.control} <span class="tag quiet">control</span></span> : <Name of={s} />}
                  </button>
                  <Marked place={section.rows.indexOf(s)} section={section} given={given} />
                </th>
                <td class="plot"><Interval of={s} x={x} best={best?.score?.mean ?? null} lines={lines} /></td>
                <td class="num strong">{s.score ? score(s.score.mean) : <span class="quiet">{s.status}</span>}</td>
                <td class="num">{s.versus_best_single && <><span class={tone(s)}>{signed(s.versus_best_single.difference)}</span><small class="mid">{range(s.versus_best_single.low, s.versus_best_single.high, signed)}</small></>}</td>
                <td class="num wide">{s.versus_best_single && <><data value={String(s.versus_best_single.p_value)}>{p(s.versus_best_single.p_value)}</data><small><data value={String(s.p_holm)}>{p(s.p_holm)}</data></small></>}</td>
                <td class="mid letters" aria-label={s.group}>{letters.length <= 12 ? letters.map((l) => <i class={s.group.includes(l) ? "" : "off"}>{l}</i>) : s.group}</td>
                {gaps && <td class="num wide">{s.gap_closed == null ? "" : percent(s.gap_closed)}</td>}
                {best && <td class="num mid">{times(s.cost_times_best_single)}</td>}
                {whole && <td><Verdict of={s.verdict} /></td>}
              </tr>,
              open === s.name && <tr class="detail"><td colSpan={9}><Detail of={s} section={section} given={given} best={best} /></td></tr>,
            ])}
          </tbody>
        </table>
      </div>
      <p class="note">
        Bars are 95 % intervals of the score over {plural(n, section.units ? "unit" : "question")}
        {section.seeds.length > 1 && ` (means over seeds ${section.seeds.join(", ")})`}. Systems that share a letter cannot be told
        apart after Holm's correction for all pairs. {best && <>The best single model was chosen on {section.best_single_chosen_on}. </>}
        {section.detectable != null && <>A true difference of {section.detectable.toFixed(3)} would be found 8 times in 10. </>}
        {whole ? <>Verdicts compare with the best single model and the controls at a level of {percent(section.rule.level)}
        {section.rule.gain ? ` and ask for a gain of ${section.rule.gain}` : ""}{controls ? "." : worded("; without an equal-budget control none is kept (--controls).")}</>
          : <>Costs are those of all questions. The rule for verdicts was fixed for all questions: there is none of these.</>}
      </p>
      <Floors section={section} />
      <EmergenceTable section={section} />
      {whole && <GridTables summary={summary} />}
    </>
  );
}

/** A mark for warnings that not all systems have: another model answered than was asked, a fit went wrong. */
function Marked({ place, section, given }: { place: number; section: Section; given: Record<string, string> }) {
  const found = ownWarnings(section, place);
  return found.length ? <a class="tag bad" href={href("audit", pick(given))} title={found.join("\n")} aria-label="warnings">!</a> : null;
}

function Findings({ section }: { section: Section }) {
  const text = section.findings.join(" ");
  const [first, ...rest] = text.match(/[^.!?]+(?:\.\d[^.!?]*)*[.!?]+(?=\s|$)\s*/g) ?? [text];
  if (!text) return <p class="lead quiet">No method has a score here, so there is nothing to compare yet.</p>;
  return <p class="lead"><strong>{worded(first)}</strong>{worded(rest.join(""))}</p>;
}

const tone = (s: System) => {
  const v = s.versus_best_single;
  return v && s.p_holm != null && s.p_holm < 0.05 ? (v.difference > 0 ? "better" : "worse") : "";
};

function Axis({ scale, lines, best }: { scale: ReturnType<typeof scaleLinear<number, number>>; lines: [string, number | null][]; best: number | null }) {
  const named: [string, number | null][] = [...lines, ["best single", best]];
  return (
    <div class="axis">
      {named.map(([name, v]) => v != null && <span class={`line-name ${name.replace(" ", "-")} ${scale(v) > 94 ? "end" : ""}`} style={{ left: `${scale(v)}%` }}>{name}</span>)}
      {scale.ticks(6).map((t) => <span class="tick" style={{ left: `${scale(t)}%` }}>{scale.tickFormat(6)(t)}</span>)}
    </div>
  );
}

function Interval({ of: s, x, best, lines }: { of: System; x: Scale; best: number | null; lines: [string, number | null][] }) {
  return (
    <div class="interval" role="img" aria-label={s.score ? `${score(s.score.mean)}, 95 % interval ${range(s.score.low, s.score.high)}` : "no score"}>
      {lines.map(([name, v]) => v != null && <span class={`line ${name}`} style={{ left: `${x(v)}%` }} />)}
      {best != null && <span class="line best-single" style={{ left: `${x(best)}%` }} />}
      {s.score && <span class="bar" style={{ left: `${x(s.score.low)}%`, width: `${x(s.score.high) - x(s.score.low)}%` }} />}
      {s.score && <span class="dot" style={{ left: `${x(s.score.mean)}%` }} />}
    </div>
  );
}

function Detail({ of: s, section, given, best }: { of: System; section: Section; given: Record<string, string>; best?: System }) {
  const v = s.versus_best_single, subsets = Object.entries(s.subsets);
  const versus = Object.entries(s.versus_controls);
  return (
    <div class="details">
      <Facts of={[
        ["what", kind(s) + (s.control_of ? ` of ${s.control_of}` : "")],
        ["verdict", s.verdict && `${s.verdict.decision}: ${s.verdict.why}`],
        ["score", s.score && `${score(s.score.mean)} (${range(s.score.low, s.score.high)}), n ${s.score.n}`],
        ["vs best single", v && `${signed(v.difference)} (${range(v.low, v.high, signed)}), ${v.wins} better, ${v.losses} worse, p ${p(v.p_value)}, Holm ${p(s.p_holm)}`],
        ...versus.map(([name, c]): [string, string] => [`vs ${name}`, `${signed(c.difference)} (${range(c.low, c.high, signed)}), p ${p(c.p_value)}`]),
        ["gap closed", s.gap_closed != null && `${percent(s.gap_closed)}${s.gap_closed_interval ? ` (${range(...s.gap_closed_interval, (g) => percent(g))})` : ""}`],
        ["emergence", s.emergence && (!s.emergence.open ? "every question is right with some single model" : `${s.emergence.solved} of ${s.emergence.open} questions that no single model got right (${percent(s.emergence.share, 1)})`
          + Object.entries(s.control_emergence).map(([c, e]) => `; its ${c} control ${percent(e.share, 1)}`).join("")
          + (section.chance ? `; chance ${percent(section.chance, 1)}` : ""))],
        ["seeds", Object.keys(s.seed_means).length > 1 && `${Object.entries(s.seed_means).map(([k, m]) => `${k}: ${score(m)}`).join(", ")}; sd ${score(s.seed_sd)}`],
        ["extra metrics", Object.entries(s.extra_metrics).filter(([k]) => k !== "subset_mean").map(([k, f]) => `${k} ${f.toPrecision(4)}`).join(", ")],
        ["error", s.error],
      ] as [string, any][]} />
      {subsets.length > 1 && (
        <table class="small">
          <caption>By subset</caption>
          <tbody>{subsets.map(([name, f]) => (
            <tr><th scope="row"><a href={href("questions", { ...pick(given), in: name, of: s.name, is: "wrong" })}>{name}</a></th>
              <td class="num">{score(f.mean)}</td><td class="num quiet">n {f.n}{f.n < 20 ? " (few)" : ""}</td></tr>
          ))}{s.macro && <tr><th scope="row">mean of subsets</th><td class="num strong">{score(s.macro.mean)}</td><td class="num quiet">{range(s.macro.low, s.macro.high)}</td></tr>}</tbody>
        </table>
      )}
      <p class="links">
        {best && best !== s && s.score && <a href={href("differences", { ...pick(given), a: best.name, b: s.name })}>What it repaired and broke</a>}
        <a href={href("questions", { ...pick(given), of: s.name, is: "wrong" })}>Its wrong answers</a>
      </p>
    </div>
  );
}

export const pick = (given: Record<string, string>): Record<string, string> => (given.s ? { s: given.s } : {});

function Floors({ section }: { section: Section }) {
  const cells: [string, number | null, string][] = [
    ["oracle", section.oracle, "the best reply of any single model, question by question: the ceiling of selection"],
    ["random pick", section.random_pick, "the expected score of a member drawn at random"],
    ["chance", section.chance, "the expected score of a guess"],
  ];
  return (
    <dl class="floors">
      {cells.map(([name, v, what]) => v != null && <div><dt>{name}</dt><dd>{score(v)}</dd><dd class="quiet">{what}</dd></div>)}
    </dl>
  );
}
