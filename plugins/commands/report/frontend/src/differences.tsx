// Any two systems: what one repaired and broke of the other, and every pair at a glance.
import { CELLS, type Cell, cellOf, chosen, indexOf } from "./filter";
import { p, plural, range, signed } from "./format";
import { Brief, Choose, Mark, Rows, systems } from "./parts";
import { href, type Route, select } from "./route";
import { scoped, scopeOf } from "./scope";
import { ScopeNote } from "./scoped";
import type { Section } from "./types";

const GRADED: Record<Cell, string> = { repaired: "better", broken: "worse", "both right": "equal, full score", "both wrong": "equal, less", "not compared": "not compared" };

export interface Pair { difference: number; low: number; high: number; n: number; p: number; holm: number }

export function pairOf(section: Section, base: number, other: number): Pair | null {
  const found = section.pairs.rows.find(([i, j]) => (i === other && j === base) || (i === base && j === other));
  if (!found) return null;
  const [first, , difference, low, high, n, raw, holm] = found;
  return first === other ? { difference, low, high, n, p: raw, holm } : { difference: -difference, low: -high, high: -low, n, p: raw, holm };
}

/** The systems that are compared: as selected, else the best method with the best single model. */
export function compared(section: Section, given: Record<string, string>): [base: number, other: number] {
  const order = [...new Set([...section.pairs.scored, ...section.rows.keys()])];
  const best = section.rows.findIndex((r) => r.best_single);
  const top = order.find((i) => section.rows[i].role === "method" && i !== best) ?? order.find((i) => i !== best) ?? 0;
  const base = indexOf(section, given.a), other = indexOf(section, given.b);
  const a = base >= 0 ? base : best >= 0 && best !== other ? best : (order.find((i) => i !== (other >= 0 ? other : top)) ?? 0);
  return [a, other >= 0 ? other : a === top ? (order.find((i) => i !== a) ?? 0) : top];
}

export function DifferencesView({ section: all, route }: { section: Section; route: Route }) {
  const { given } = route, { section, places, whole } = scoped(all, given);
  const [base, other] = compared(section, given);
  const a = section.rows[base], b = section.rows[other];
  if (section.rows.length < 2) return <p class="lead quiet">There is one system only: nothing to compare it with.</p>;
  const scores = section.units?.scores ?? section.questions.scores;
  const counts = Object.fromEntries(CELLS.map((c) => [c, 0])) as Record<Cell, number>;
  const cells = scores[base].map((s, q) => cellOf(s, scores[other][q]));
  if (whole) for (const c of cells) counts[c]++;
  else for (const q of places) counts[cells[q]]++;
  const cell = (CELLS as readonly string[]).includes(given.cell) ? (given.cell as Cell) : "broken";
  const pair = pairOf(section, base, other);
  const shown = CELLS.filter((c) => c !== "not compared" || counts[c]);
  const change = (to: Record<string, string>) => select(route, { a: a.name, b: b.name, ...to });
  return (
    <>
      <div class="pair">
        <Choose id="base" label="From" value={a.name} options={systems(section)} onChange={(v) => change({ a: v })} />
        <button class="swap" title="swap the two" aria-label="swap the two systems" onClick={() => change({ a: b.name, b: a.name })}>⇄</button>
        <Choose id="other" label="to" value={b.name} options={systems(section)} onChange={(v) => change({ b: v })} />
      </div>
      <ScopeNote section={all} given={given} view="differences" />
      <p class="lead">
        {pair ? (
          <>
            <strong>{b.name} {pair.holm < 1 - section.rule.level ? (pair.difference > 0 ? "is better than" : "is worse than") : "cannot be told apart from"} {a.name}.</strong>{" "}
            The difference is {signed(pair.difference)} ({range(pair.low, pair.high, signed)}) over {plural(pair.n, section.units ? "unit" : "question")};
            p <data value={String(pair.p)}>{p(pair.p)}</data> ({section.pairs.test}), <data value={String(pair.holm)}>{p(pair.holm)}</data> corrected for all {plural(section.pairs.rows.length, "pair")} of this report{whole ? "" : " on these questions"}.
          </>
        ) : <span class="quiet">{a === b ? "Choose two different systems." : "These two have no scored question in common."}</span>}
      </p>
      <div class="tiles" role="tablist" aria-label="what happened to the questions">
        {shown.map((c) => (
          <button role="tab" aria-selected={c === cell} class={`tile ${c.replace(" ", "-")}`} onClick={() => change({ cell: c })}>
            <b>{counts[c].toLocaleString("en")}</b><span>{section.binary ? c : GRADED[c]}</span>
          </button>
        ))}
      </div>
      <div class="proportion" aria-hidden="true">
        {shown.map((c) => counts[c] > 0 && <span class={c.replace(" ", "-")} style={{ flexGrow: String(counts[c]) }} />)}
      </div>
      {section.units ? <UnitList section={section} cells={cells} cell={cell} /> : <List section={section} route={route} a={base} b={other} cell={cell} />}
      <h2>Every pair</h2>
      <PairTable section={section} route={route} base={base} other={other} />
    </>
  );
}

function List({ section, route, a, b, cell }: { section: Section; route: Route; a: number; b: number; cell: Cell }) {
  const q = section.questions;
  const given = { ...scopeOf(route.given), a: section.rows[a].name, b: section.rows[b].name, cell };
  const found = chosen(section, given);
  return (
    <Rows count={found.length} height={44} label={`questions ${cell}`} empty={`No question is ${cell}.`} class="questions"
      open={(i) => { location.hash = href("question", given, q.ids[found[i]]); }}
      row={(i) => {
        const at = found[i];
        return (
          <>
            <span class="index" role="gridcell">{at}</span>
            <span class="begins" role="gridcell" dir="auto">{q.begins[at] || q.ids[at]}</span>
            <span class="answers" role="gridcell">
              <Mark score={q.scores[a][at]} mark={q.marks[a][at]} /><bdi>{q.answers[a][at] || "–"}</bdi>
              <span class="arrow" aria-label="becomes">→</span>
              <Mark score={q.scores[b][at]} mark={q.marks[b][at]} /><bdi>{q.answers[b][at] || "–"}</bdi>
            </span>
          </>
        );
      }} />
  );
}

function UnitList({ section, cells, cell }: { section: Section; cells: Cell[]; cell: Cell }) {
  const units = section.units!;
  const found = units.ids.flatMap((id, i) => (cells[i] === cell ? [id] : []));
  return (
    <>
      <p class="note">This metric scores groups of questions together: the groups are what is counted.</p>
      <Rows count={found.length} height={32} label={`groups ${cell}`} empty={`No group is ${cell}.`} open={() => {}} row={(i) => <span role="gridcell"><bdi>{found[i]}</bdi></span>} />
    </>
  );
}

function PairTable({ section, route, base, other }: { section: Section; route: Route; base: number; other: number }) {
  const order = section.pairs.scored, alpha = 1 - section.rule.level;
  if (order.length < 2) return <p class="quiet">Less than two systems have scores.</p>;
  const most = Math.max(0.001, ...section.pairs.rows.map((r) => Math.abs(r[2])));
  return (
    <>
      <div class="scroll">
        <table class="pairs">
          <caption class="unseen">Difference of the row's system to the column's</caption>
          <thead><tr><td />{order.map((j) => <th scope="col"><span><Brief name={section.rows[j].name} /></span></th>)}</tr></thead>
          <tbody>
            {order.map((i) => (
              <tr>
                <th scope="row"><Brief name={section.rows[i].name} most={32} /></th>
                {order.map((j) => {
                  const found = i === j ? null : pairOf(section, j, i);
                  if (!found) return <td class="self" />;
                  const sure = found.holm < alpha, share = Math.round((100 * Math.abs(found.difference)) / most);
                  const colour = sure ? `color-mix(in srgb, var(--${found.difference > 0 ? "right" : "wrong"}) ${15 + share * 0.5}%, transparent)` : "transparent";
                  return (
                    <td class={i === other && j === base ? "chosen" : ""}>
                      <a href={href("differences", { ...scopeOf(route.given), a: section.rows[j].name, b: section.rows[i].name })} style={{ background: colour }}
                        title={`${section.rows[i].name} − ${section.rows[j].name}: ${signed(found.difference)}, p ${p(found.p)}, Holm ${p(found.holm)}`}>
                        {signed(found.difference).replace("0.", ".")}
                      </a>
                    </td>
                  );
                })}
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      <p class="note">Row minus column. Coloured where the two can be told apart after Holm's correction.</p>
    </>
  );
}
