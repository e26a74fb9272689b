// Which questions are shown, and in which order.
import type { Section } from "./types";

export const CELLS = ["repaired", "broken", "both right", "both wrong", "not compared"] as const;
export type Cell = (typeof CELLS)[number];

export const indexOf = (section: Section, name: string | undefined): number => section.rows.findIndex((r) => r.name === name);

export function cellOf(base: number | null, other: number | null): Cell {
  if (base == null || other == null) return "not compared";
  if (base !== other) return other > base ? "repaired" : "broken";
  return base >= 1 ? "both right" : "both wrong";
}

/** Per question the best score of any single model; null where none has one. */
export function oracle(section: Section): (number | null)[] {
  const singles = section.rows.flatMap((r, i) => (r.role === "baseline" ? [section.questions.scores[i]] : []));
  return section.questions.ids.map((_, q) => singles.reduce<number | null>((m, s) => (s[q] == null ? m : Math.max(m ?? -Infinity, s[q]!)), null));
}

export function mean(values: (number | null)[], places: number[]): number | null {
  let sum = 0, n = 0;
  for (const i of places) if (values[i] != null) { sum += values[i]!; n++; }
  return n ? sum / n : null;
}

const KINDS: Record<string, (section: Section, q: number) => boolean> = {
  split: (s, q) => new Set(s.questions.scores.map((c) => c[q]).filter((v) => v != null)).size > 1,
  emergent: (s, q) => {
    const by = (role: string) => s.rows.flatMap((r, i) => (r.role === role && s.questions.scores[i][q] != null ? [s.questions.scores[i][q]!] : []));
    const alone = by("baseline");
    return alone.length > 0 && alone.every((v) => v < 1) && by("method").some((v) => v >= 1);
  },
  none: (s, q) => s.questions.scores.every((c) => (c[q] ?? 0) < 1),
  all: (s, q) => s.questions.scores.every((c) => (c[q] ?? 1) >= 1),
};
export const KIND_NAMES: Record<string, string> = {
  split: "systems disagree", emergent: "a method is right, no single model", none: "nobody is right", all: "all are right",
};
export const STATES: Record<string, string> = { right: "right", wrong: "wrong", failed: "failed", unread: "no answer read", cut: "cut off", absent: "not recorded" };
const MARKS: Record<string, string> = { failed: "f", unread: "u", cut: "c", absent: "-" };

export function chosen(section: Section, given: Record<string, string>): number[] {
  const { scores, marks, subset, subsets, ids, begins } = section.questions;
  const tests: ((q: number) => boolean)[] = [];
  const a = indexOf(section, given.a), b = indexOf(section, given.b), of = indexOf(section, given.of);
  if (given.in) { const s = subsets.indexOf(given.in); tests.push((q) => subset[q] === s); }
  if (given.find) { const f = given.find.toLowerCase(); tests.push((q) => ids[q].toLowerCase().includes(f) || begins[q].toLowerCase().includes(f)); }
  if (given.cell && a >= 0 && b >= 0) tests.push((q) => cellOf(scores[a][q], scores[b][q]) === given.cell);
  if (given.kind && KINDS[given.kind]) tests.push((q) => KINDS[given.kind](section, q));
  if (given.is && of >= 0) {
    const { is } = given;
    if (is === "right") tests.push((q) => (scores[of][q] ?? -1) >= 1);
    else if (is === "wrong") tests.push((q) => scores[of][q] != null && scores[of][q]! < 1);
    else tests.push((q) => marks[of][q] === MARKS[is]);
  }
  const found = ids.map((_, q) => q).filter((q) => tests.every((t) => t(q)));
  return sorted(section, found, given.sort);
}

export const SORTS: Record<string, string> = { "": "as in the dataset", hard: "hardest first", easy: "easiest first", split: "most disagreement first" };

function sorted(section: Section, places: number[], by: string | undefined): number[] {
  if (!by) return places;
  const { scores } = section.questions;
  const value = (q: number): number => {
    const known = scores.flatMap((c) => (c[q] == null ? [] : [c[q]!]));
    if (!known.length) return 9;
    const m = known.reduce((x, y) => x + y, 0) / known.length;
    if (by === "hard") return m;
    if (by === "easy") return -m;
    return -known.reduce((x, y) => x + (y - m) ** 2, 0) / known.length;
  };
  const column = indexOf(section, by);
  const key = column >= 0 ? (q: number) => scores[column][q] ?? 9 : value;
  const keys = new Map(places.map((q) => [q, key(q)]));
  return [...places].sort((x, y) => keys.get(x)! - keys.get(y)! || x - y);
}
