// The questions that numbers are about, as the filters in the address say; and all numbers that the scores of these decide.
import { chosen, KIND_NAMES, STATES } from "./filter";
import { type Column, detectable, Drawn, holm, isBinary, letters, meanOf, paired, type Paired } from "./statistics";
import type { Emergence, Estimate, Section, System, Versus } from "./types";

const FILTERS = ["in", "find", "kind", "of", "is"] as const;

/** What of the address says which questions are meant, with the section. */
export function scopeOf(given: Record<string, string>): Record<string, string> {
  const kept = ["s", ...FILTERS].flatMap((k) => (given[k] && (k !== "of" || given.is) && (k !== "is" || given.of) ? [[k, given[k]]] : []));
  return Object.fromEntries(kept);
}

export const isFiltered = (given: Record<string, string>): boolean => FILTERS.some((k) => scopeOf(given)[k]);

/** Whether questions are chosen by what systems made of them: then a test of these systems on them proves nothing. */
export const byOutcome = (given: Record<string, string>): boolean => Boolean(given.kind || (given.is && given.of));

export function described(given: Record<string, string>): string {
  return [
    given.in && `subset ${given.in}`, given.find && `text “${given.find}”`, given.kind && KIND_NAMES[given.kind],
    given.of && given.is && `${given.of} is ${STATES[given.is] ?? given.is}`,
  ].filter(Boolean).join(", ");
}

export interface Scope { section: Section; places: number[]; whole: boolean; }

const last = new WeakMap<Section, { key: string; scope: Scope }>();

/** The section as if it had been run on the questions that are chosen alone. */
export function scoped(section: Section, given: Record<string, string>): Scope {
  const filters = scopeOf(given), key = JSON.stringify(filters);
  const known = last.get(section);
  if (known?.key === key) return known.scope;
  const places = chosen(section, filters);
  const whole = !isFiltered(given) || section.units != null;
  const scope = { section: whole ? section : restricted(section, places), places, whole };
  last.set(section, { key, scope });
  return scope;
}

export function restricted(section: Section, places: number[]): Section {
  const { rows, rule } = section, columns = section.questions.scores.map((c) => Float64Array.from(places, (q) => c[q] ?? NaN));
  const drawn = new Drawn(places.length, rule.level), means = columns.map(meanOf);
  const scored = rows.map((_, i) => i).filter((i) => !Number.isNaN(means[i])).sort((i, j) => means[j] - means[i] || i - j);
  const singles = rows.flatMap((r, i) => (r.role === "baseline" ? [columns[i]] : []));
  const ceiling = over(singles, (known) => Math.max(...known)), level = over(singles, (known) => meanOf(known));
  const best = rows.findIndex((r) => r.best_single);
  const versus = (i: number, j: number): Versus | null => {
    const found = paired(columns[i], columns[j]);
    return found && asVersus(found, drawn.difference(columns[i], columns[j], found));
  };
  const against = rows.map((_, i) => (best >= 0 && i !== best ? versus(i, best) : null));
  const corrected = holm(against.map((v) => v && v.p_value));
  const pairs = allPairs(columns, scored, drawn), groups = grouped(pairs, scored, 1 - rule.level);
  const gap = meanOf(ceiling) - means[best];
  const changed = rows.map((row, i): System => {
    const controls = rows.flatMap((r, j) => (row.role === "method" && r.control && r.control_of === row.label ? [[r.control, j] as const] : []));
    return {
      ...row, score: Number.isNaN(means[i]) ? null : estimate(columns[i], means[i], drawn), versus_best_single: against[i], p_holm: corrected[i],
      group: groups.get(i) ?? "", gap_closed: row.role === "baseline" || !(gap > 1e-12) || Number.isNaN(means[i]) ? null : (means[i] - means[best]) / gap,
      gap_closed_interval: null, seed_means: {}, seed_sd: null, subsets: {}, macro: null, extra_metrics: {}, verdict: null,
      versus_controls: named(controls, (j) => versus(i, j)),
      emergence: emerged(section, i, columns[i], ceiling), control_emergence: named(controls, (j) => emerged(section, j, columns[j], ceiling)),
    };
  });
  const could = best < 0 ? [] : rows.flatMap((r, i) => { const found = r.role === "method" && paired(columns[i], columns[best]); return found ? [detectable(found, rule.level)] : []; });
  return {
    ...section, rows: changed, oracle: singles.length ? known(meanOf(ceiling)) : null, random_pick: singles.length ? known(meanOf(level)) : null, chance: null,
    detectable: median(could), pairs: { rows: pairs, scored, test: columns.every(isBinary) ? "exact McNemar" : "sign flips" },
    findings: found(changed, rule.level),
  };
}

const known = (v: number): number | null => (Number.isNaN(v) ? null : v);
const asVersus = (f: Paired, [low, high]: [number, number]): Versus =>
  ({ difference: f.difference, low, high, n: f.n, wins: f.wins, losses: f.losses, p_value: f.p, test: f.binary ? "mcnemar" : "permutation" });

function estimate(column: Column, mean: number, drawn: Drawn): Estimate {
  const [low, high] = drawn.interval(column);
  return { mean, low, high, n: column.filter((v) => !Number.isNaN(v)).length };
}

function over(columns: Column[], of: (known: number[]) => number): Column {
  return Float64Array.from(columns[0] ?? [], (_, q) => { const found = columns.map((c) => c[q]).filter((v) => !Number.isNaN(v)); return found.length ? of(found) : NaN; });
}

function named<T>(controls: (readonly [string, number])[], of: (j: number) => T | null): Record<string, T> {
  return Object.fromEntries(controls.flatMap(([name, j]) => { const found = of(j); return found == null ? [] : [[name, found]]; }));
}

/** Of several seeds the page has means alone, which do not tell what any seed got right. */
function emerged(section: Section, i: number, column: Column, ceiling: Column): Emergence | null {
  if (section.rows[i].role === "baseline" || !section.binary || section.seeds.length > 1 || !ceiling.length) return null;
  let solved = 0, open = 0;
  column.forEach((v, q) => { if (ceiling[q] < 1 && !Number.isNaN(v)) { open++; if (v >= 1) solved++; } });
  return { solved, open, share: open ? solved / open : null };
}

type PairRow = [number, number, number, number, number, number, number, number];

function allPairs(columns: Column[], scored: number[], drawn: Drawn): PairRow[] {
  const out: PairRow[] = [];
  scored.forEach((i, x) => scored.slice(0, x).forEach((j) => {
    const f = paired(columns[i], columns[j]);
    if (f) out.push([i, j, f.difference, ...drawn.difference(columns[i], columns[j], f), f.n, f.p, 1]);
  }));
  // two that share no question count as a test that found nothing, as they do without filters
  const missing = (scored.length * (scored.length - 1)) / 2 - out.length;
  const corrected = holm([...out.map((r) => r[6]), ...Array<number>(missing).fill(1)]);
  out.forEach((row, k) => { row[7] = corrected[k]!; });
  return out;
}

function grouped(pairs: PairRow[], scored: number[], alpha: number): Map<number, string> {
  const place = new Map(scored.map((i, x) => [i, x])), differ = scored.map(() => scored.map(() => false));
  for (const [i, j, , , , , , corrected] of pairs) if (corrected < alpha) differ[place.get(i)!][place.get(j)!] = differ[place.get(j)!][place.get(i)!] = true;
  const found = letters(differ);
  return new Map(scored.map((i, x) => [i, found[x]]));
}

function median(values: number[]): number | null {
  const sorted = [...values].sort((x, y) => x - y), half = sorted.length >> 1;
  return sorted.length ? (sorted.length % 2 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2) : null;
}

function found(rows: System[], level: number): string[] {
  const methods = rows.filter((r) => r.role === "method" && r.versus_best_single), best = rows.find((r) => r.best_single);
  if (!methods.length || !best) return [];
  const told = (sign: number) => methods.filter((m) => m.p_holm! < 1 - level && sign * m.versus_best_single!.difference > 0).length;
  const won = told(1), lost = told(-1);
  return [`${won} of ${methods.length} ${methods.length === 1 ? "method" : "methods"} ${won === 1 ? "beats" : "beat"} the best single model (${best.name}) on these questions${lost ? `, ${lost} ${lost === 1 ? "does" : "do"} worse` : ""}.`];
}

/** The letters of all systems on the questions that are chosen. */
export const groupsOf = (section: Section, given: Record<string, string>): string[] => scoped(section, given).section.rows.map((r) => r.group);
