// Cost against score: any quantity, the Pareto front, and what the best single model makes of the same budget.
import { scaleLinear, scaleLog } from "d3-scale";
import { useEffect, useRef, useState } from "preact/hooks";
import { amount, brief, count, large, percent, quantity, QUANTITIES, score, signed } from "./format";
import { Choose, Name } from "./parts";
import { href, type Route, select } from "./route";
import type { Amount, CostLine, Section, System } from "./types";
import { pick } from "./verdict";

const HEIGHTS: Record<string, [string, (s: System) => number | null | undefined, (v: number) => string]> = {
  score: ["score", (s) => s.score?.mean, score],
  difference: ["difference to the best single model", (s) => (s.best_single ? 0 : s.versus_best_single?.difference), signed],
  gap: ["gap closed", (s) => (s.best_single ? 0 : s.gap_closed), (v) => percent(v)],
  emergence: ["emergence", (s) => s.emergence?.share, (v) => percent(v, 1)],
};

interface Point { system: System; x: number; y: number; least: boolean }

/** Points that no other dominates: none is as cheap and as good, and better in one of the two. */
export function front(points: Point[]): Point[] {
  const kept = points.filter((p) => !points.some((o) => o.x <= p.x && o.y >= p.y && (o.x < p.x || o.y > p.y)));
  return kept.sort((a, b) => a.x - b.x || a.y - b.y);
}

export function CostView({ section, route }: { section: Section; route: Route }) {
  const { given } = route;
  const unit = given.x && QUANTITIES[given.x] ? given.x : section.cost_unit;
  const height = given.y && HEIGHTS[given.y] ? given.y : "score";
  const linear = given.scale === "linear";
  const [, of] = HEIGHTS[height];
  const points: Point[] = section.rows.flatMap((system) => {
    const cost = system.cost_per_question[unit], y = of(system);
    return cost?.value != null && y != null ? [{ system, x: cost.value, y, least: cost.at_least }] : [];
  });
  const missing = section.rows.filter((s) => of(s) != null && s.cost_per_question[unit]?.value == null);
  return (
    <>
      <div class="filters">
        <Choose id="x" label="Across: per question" value={unit} options={Object.entries(QUANTITIES)} onChange={(v) => select(route, { x: v })} />
        <Choose id="y" label="Up" value={height} options={Object.entries(HEIGHTS).map(([k, [name]]): [string, string] => [k, name])} onChange={(v) => select(route, { y: v })} />
        <Choose id="scale" label="Scale" value={linear ? "linear" : ""} options={[["", "logarithmic"], ["linear", "linear"]]} onChange={(v) => select(route, { scale: v })} />
      </div>
      {points.length ? <Plot points={points} unit={unit} height={height} linear={linear} section={section} given={given} />
        : <p class="lead quiet">{QUANTITIES[unit]} of no system are known. Unknown is not nothing: choose another quantity, or name prices (--prices).</p>}
      {points.length > 0 && missing.length > 0 && <p class="note">Not drawn, since unknown: {missing.map((s) => s.name).join(", ")}.</p>}
      <Breakdown section={section} />
    </>
  );
}

function useWidth(): [{ current: HTMLDivElement | null }, number] {
  const box = useRef<HTMLDivElement>(null), [width, set] = useState(900);
  useEffect(() => {
    const watch = new ResizeObserver(([e]) => set(e.contentRect.width));
    watch.observe(box.current!);
    return () => watch.disconnect();
  }, []);
  return [box, width];
}

function Plot({ points, unit, height, linear, section, given }: { points: Point[]; unit: string; height: string; linear: boolean; section: Section; given: Record<string, string> }) {
  const [box, width] = useWidth();
  const [, , shown] = HEIGHTS[height];
  const tall = Math.max(300, Math.min(460, width * 0.55)), left = 52, right = 16, top = 16, bottom = 46;
  const xs = points.map((p) => p.x), positive = xs.filter((x) => x > 0);
  const log = !linear && positive.length === xs.length;
  const ends: [number, number] = [Math.min(...xs), Math.max(...xs)];
  const x = log ? scaleLog().domain([ends[0] / 1.4, ends[1] * 1.6]).range([left, width - right]) : scaleLinear().domain([0, ends[1] * 1.1 || 1]).range([left, width - right]);
  const bars = height === "score" ? points.flatMap((p) => [p.system.score!.low, p.system.score!.high]) : points.map((p) => p.y);
  if (height === "score" && section.oracle != null) bars.push(section.oracle);
  const y = scaleLinear().domain([Math.min(...bars), Math.max(...bars)]).nice(5).range([tall - bottom, top]);
  if (y.domain()[0] === y.domain()[1]) y.domain([y.domain()[0] - 0.5, y.domain()[1] + 0.5]);
  const best = front(points);
  const stairs = best.map((p, i) => `${i ? `H${x(p.x)}V${y(p.y)}` : `M${x(p.x)},${y(p.y)}`}`).join("") + (best.length ? `H${width - right}` : "");
  const curve = points.filter((p) => p.system.best_single || p.system.control === "equal budget").sort((a, b) => a.x - b.x);
  const ticks = log ? spaced(x.ticks(6), x, 54) : x.ticks(width < 500 ? 4 : 7);
  const labels = placed(points.map((p) => ({ x: x(p.x), y: y(p.y), text: brief(p.system.name) })), width - right, tall - bottom);
  return (
    <figure class="cost" ref={box}>
      <svg width={width} height={tall} viewBox={`0 0 ${width} ${tall}`} role="img" aria-label={`${HEIGHTS[height][0]} against ${QUANTITIES[unit]} per question`}>
        {ticks.map((t) => <g class="tick"><line x1={x(t)} x2={x(t)} y1={top} y2={tall - bottom} /><text x={x(t)} y={tall - bottom + 18} text-anchor="middle">{unit === "flops" ? large(t) : quantity(t)}</text></g>)}
        {y.ticks(5).map((t) => <g class="tick"><line x1={left} x2={width - right} y1={y(t)} y2={y(t)} /><text x={left - 8} y={y(t) + 4} text-anchor="end">{height === "gap" || height === "emergence" ? shown(t) : y.tickFormat(5)(t)}</text></g>)}
        {height === "score" && section.oracle != null && <g class="ceiling"><line x1={left} x2={width - right} y1={y(section.oracle)} y2={y(section.oracle)} /><text x={left + 6} y={y(section.oracle) + 14}>oracle</text></g>}
        <text class="title" x={(left + width - right) / 2} y={tall - 6} text-anchor="middle">{QUANTITIES[unit]} per question{log ? ", logarithmic" : ""}</text>
        {best.length > 0 && <path class="front" d={stairs} />}
        {curve.length > 1 && <path class="budget" d={`M${curve.map((p) => `${x(p.x)},${y(p.y)}`).join("L")}`} />}
        {points.map((p, i) => (
          <a href={href("questions", { ...pick(given), of: p.system.name, is: "wrong" })} class={`point ${p.system.role} ${p.system.best_single ? "best" : ""} ${best.includes(p) ? "on-front" : ""}`}>
            <title>{`${p.system.name}: ${p.least ? "at least " : ""}${quantity(p.x)} ${QUANTITIES[unit]}, ${HEIGHTS[height][0]} ${shown(p.y)}`}</title>
            {height === "score" && <line class="whisker" x1={x(p.x)} x2={x(p.x)} y1={y(p.system.score!.low)} y2={y(p.system.score!.high)} />}
            <circle cx={x(p.x)} cy={y(p.y)} r={5.5} />
            {p.least && <text class="least" x={x(p.x) + 8} y={y(p.y) + 4}>→</text>}
            {labels[i] && <text x={labels[i]!.x} y={labels[i]!.y} text-anchor={labels[i]!.anchor}>{brief(p.system.name)}</text>}
          </a>
        ))}
      </svg>
      <figcaption class="note">
        The stepped line joins the systems that none is both cheaper and better than. {curve.length > 1 && "The dashed line is the best single model with growing budgets (equal-budget controls). "}
        {height === "score" && "Whiskers are 95 % intervals. "}Judging replies and fitting are not counted here; the table below has them.
      </figcaption>
    </figure>
  );
}

function spaced(ticks: number[], x: (v: number) => number, least: number): number[] {
  const round = ticks.filter((t) => /^[125]/.test(t.toExponential()) && Number(t.toExponential()[0]) === t / 10 ** Math.floor(Math.log10(t) + 1e-9));
  return round.reduce<number[]>((kept, t) => (kept.length && x(t) - x(kept[kept.length - 1]) < least ? kept : [...kept, t]), []);
}

interface Label { x: number; y: number; anchor: "start" | "middle" | "end" }

/** Place each label beside its point where it meets no other; where there is no such place it is left out. */
function placed(points: { x: number; y: number; text: string }[], right: number, bottom: number): (Label | null)[] {
  const taken = points.map((p) => [p.x - 7, p.y - 7, p.x + 7, p.y + 7]);
  return points.map((p) => {
    const w = p.text.length * 7.3;
    const tries: [Label, number[]][] = [
      [{ x: p.x + 10, y: p.y + 4, anchor: "start" }, [p.x + 9, p.y - 7, p.x + 10 + w, p.y + 7]],
      [{ x: p.x - 10, y: p.y + 4, anchor: "end" }, [p.x - 10 - w, p.y - 7, p.x - 9, p.y + 7]],
      [{ x: p.x, y: p.y - 11, anchor: "middle" }, [p.x - w / 2, p.y - 22, p.x + w / 2, p.y - 8]],
      [{ x: p.x, y: p.y + 20, anchor: "middle" }, [p.x - w / 2, p.y + 9, p.x + w / 2, p.y + 23]],
    ];
    const free = tries.find(([, [x1, y1, x2, y2]]) => x1 > 46 && x2 < right && y1 > 4 && y2 < bottom && taken.every(([a, b, c, d]) => x2 < a || x1 > c || y2 < b || y1 > d));
    if (free) taken.push(free[1]);
    return free ? free[0] : null;
  });
}

const SHOWN = ["calls", "prompt", "completion", "reasoning", "seconds", "flops", "money"] as const;
const HEADS: Record<string, string> = { calls: "calls", prompt: "read", completion: "written", reasoning: "reasoning", seconds: "seconds", flops: "FLOPs", money: "money" };

function Breakdown({ section }: { section: Section }) {
  const [open, setOpen] = useState<string | null>(null);
  const rows = [...section.rows].reverse();
  const has = SHOWN.filter((k) => k === "calls" || rows.some((s) => s.costs.some((c) => c[k].value)));
  return (
    <>
      <h2>Who pays</h2>
      <div class="scroll">
        <table class="costs">
          <thead><tr><th scope="col">System</th>{has.map((k) => <th scope="col" class="num">{HEADS[k]}</th>)}<th scope="col" class="num" title="tokens that the cache spared when it was run">saved tokens</th></tr></thead>
          <tbody>
            {rows.map((s) => {
              const lines = merged(s.costs), all = sum(s.costs.filter((c) => c.phase !== "metric" && c.phase !== "reference"));
              return [
                <tr class={s.role}>
                  <th scope="row"><button class="plain" aria-expanded={open === s.name} onClick={() => setOpen(open === s.name ? null : s.name)}><Name of={s} /></button></th>
                  {has.map((k) => <td class="num">{all ? amount(all[k], k === "flops" ? large : quantity) : "?"}</td>)}
                  <td class="num quiet">{count(saved(s.costs))}</td>
                </tr>,
                open === s.name && lines.map((c) => (
                  <tr class="part">
                    <th scope="row"><span class="phase">{c.phase}{c.role && ` · ${c.role}`}</span> <bdi>{c.model}</bdi></th>
                    {has.map((k) => <td class="num">{amount(c[k], k === "flops" ? large : quantity)}</td>)}
                    <td class="num quiet">{count(saved([c]))}</td>
                  </tr>
                )),
              ];
            })}
          </tbody>
        </table>
      </div>
      <p class="note">Totals of all runs of a system: fitting and answering, without judging its replies or what only fixes a control's budget. Each call is counted as
        what the work costs, whether it was made then or came from the cache. “≥” is a sum with unknown parts, “?” is unknown.</p>
    </>
  );
}

const plus = (a: Amount, b: Amount): Amount => ({
  value: a.value == null && b.value == null ? null : (a.value ?? 0) + (b.value ?? 0),
  at_least: (a.at_least || b.at_least || (a.value == null) !== (b.value == null)) && !(a.value == null && b.value == null),
});
const added = (a: CostLine, b: CostLine): CostLine => {
  const out = { ...a, saved: { ...a.saved } };
  for (const k of SHOWN) out[k] = plus(a[k], b[k]);
  for (const [k, v] of Object.entries(b.saved)) out.saved[k] = (out.saved[k] ?? 0) + v;
  return out;
};
const sum = (lines: CostLine[]): CostLine | null => (lines.length ? lines.reduce(added) : null);
const saved = (lines: CostLine[]) => lines.reduce((n, c) => n + (c.saved.prompt ?? 0) + (c.saved.completion ?? 0), 0);

/** Lines of the same phase, role and model, over seeds. */
function merged(lines: CostLine[]): CostLine[] {
  const out = new Map<string, CostLine>();
  for (const c of lines) {
    const key = JSON.stringify([c.phase, c.role, c.model]), old = out.get(key);
    out.set(key, old ? added(old, c) : c);
  }
  return [...out.values()];
}
