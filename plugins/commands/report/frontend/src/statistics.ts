// The statistics of moco_toolkit_comparison and of the core's reports, for the questions that a filter leaves.
// A column holds a system's scores of these questions; NaN stands for none.
export type Column = Float64Array;

const CERTAIN = 1e-9;
const FLIPPED = 12;
const LARGE = 1000;
const RESAMPLES = 2000;

export const meanOf = (values: ArrayLike<number>): number => {
  let sum = 0, n = 0;
  for (let i = 0; i < values.length; i++) if (!Number.isNaN(values[i])) { sum += values[i]; n++; }
  return n ? sum / n : NaN;
};

export const isBinary = (values: ArrayLike<number>): boolean => {
  for (let i = 0; i < values.length; i++) if (values[i] !== 0 && values[i] !== 1 && !Number.isNaN(values[i])) return false;
  return true;
};

/** The complementary error function of x >= 0: its series where it converges quickly, else its continued fraction. */
export function erfc(x: number): number {
  if (x > 27) return 0;
  if (x < 2.5) {
    let term = x, sum = x;
    for (let n = 1; term > 1e-18 * sum; n++) { term *= (2 * x * x) / (2 * n + 1); sum += term; }
    return 1 - ((2 * sum) / Math.sqrt(Math.PI)) * Math.exp(-x * x);
  }
  let tail = x;
  for (let n = 120; n > 0; n--) tail = x + n / 2 / tail;
  return Math.exp(-x * x) / (tail * Math.sqrt(Math.PI));
}

const deviated = new Map<number, number>();

/** How many standard deviations to both sides of a mean hold this share. */
export function deviations(level: number): number {
  let low = 0, high = deviated.get(level) ?? 40;
  if (high < 40) return high;
  for (let i = 0; i < 80; i++) { const middle = (low + high) / 2; if (erfc(middle / Math.SQRT2) > 1 - level) low = middle; else high = middle; }
  deviated.set(level, high);
  return high;
}

/** Wilson's interval of a share. */
export function wilson(successes: number, n: number, level: number): [number, number] {
  const z = deviations(level), p = successes / n, centre = (p + (z * z) / (2 * n)) / (1 + (z * z) / n);
  const half = (z / (1 + (z * z) / n)) * Math.sqrt((p * (1 - p)) / n + (z * z) / (4 * n * n));
  return [Math.max(0, centre - half), Math.min(1, centre + half)];
}

/** Bonett and Price's interval of a difference of paired shares. */
export function bonettPrice(wins: number, losses: number, n: number, level: number): [number, number] {
  const centre = (wins - losses) / (n + 2), half = deviations(level) * Math.sqrt(((wins + losses + 2) / (n + 2) - centre * centre) / (n + 2));
  return [Math.max(-1, centre - half), Math.min(1, centre + half)];
}

const logFactorials = [0];

/** The exact two-sided McNemar test of discordant pairs. */
export function mcnemar(wins: number, losses: number): number {
  const n = wins + losses;
  if (wins === losses) return 1;
  for (let i = logFactorials.length; i <= n; i++) logFactorials.push(logFactorials[i - 1] + Math.log(i));
  let sum = 0;
  for (let i = Math.min(wins, losses); i >= 0; i--) sum += Math.exp(logFactorials[n] - logFactorials[i] - logFactorials[n - i] - n * Math.LN2);
  return Math.min(1, 2 * sum);
}

/** The sign-flip test: over all flips where they are few, else in its normal limit. */
export function flips(differences: number[]): number {
  const moved = differences.filter((d) => d !== 0);
  if (!moved.length) return 1;
  const observed = Math.abs(moved.reduce((x, y) => x + y, 0));
  if (moved.length > FLIPPED) return erfc(observed / Math.sqrt(2 * moved.reduce((x, y) => x + y * y, 0)));
  let extreme = 0;
  for (let bits = 0; bits < 2 ** moved.length; bits++) {
    const sum = moved.reduce((s, d, i) => s + (bits & (1 << i) ? d : -d), 0);
    if (Math.abs(sum) >= observed - CERTAIN) extreme++;
  }
  return extreme / 2 ** moved.length;
}

export interface Paired { difference: number; n: number; wins: number; losses: number; square: number; p: number; binary: boolean }

/** Compare two systems on the questions that both have a score for; null if they share none. `square` is the mean square difference. */
export function paired(one: Column, other: Column): Paired | null {
  let n = 0, wins = 0, losses = 0, sum = 0, squares = 0, binary = true;
  for (let i = 0; i < one.length; i++) {
    const a = one[i], b = other[i], d = a - b;
    if (Number.isNaN(d)) continue;
    if (binary && ((a !== 0 && a !== 1) || (b !== 0 && b !== 1))) binary = false;
    n++;
    sum += d;
    squares += d * d;
    if (d > 0) wins++; else if (d < 0) losses++;
  }
  return n ? { difference: sum / n, n, wins, losses, square: squares / n, p: binary ? mcnemar(wins, losses) : flips(differences(one, other)), binary } : null;
}

function differences(one: Column, other: Column): number[] {
  const out: number[] = [];
  for (let i = 0; i < one.length; i++) if (!Number.isNaN(one[i] - other[i])) out.push(one[i] - other[i]);
  return out;
}

/** Holm's correction; what is null is no test. */
export function holm(values: (number | null)[]): (number | null)[] {
  const order = values.flatMap((p, i) => (p == null ? [] : [i])).sort((i, j) => values[i]! - values[j]! || i - j);
  const out: (number | null)[] = values.map(() => null);
  let largest = 0;
  order.forEach((i, rank) => { largest = Math.max(largest, Math.min(1, (order.length - rank) * values[i]!)); out[i] = largest; });
  return out;
}

/** The compact letter display of systems in the order of their scores (Piepho 2004): they share a letter unless they differ. */
export function letters(differ: boolean[][]): string[] {
  let groups: number[][] = differ.length ? [differ.map((_, i) => i)] : [];
  for (let i = 0; i < differ.length; i++) {
    for (let j = 0; j < i; j++) {
      if (!differ[i][j]) continue;
      const split = groups.flatMap((g) => (g.includes(i) && g.includes(j) ? [g.filter((k) => k !== i), g.filter((k) => k !== j)] : [g]));
      const unlike = [...new Map(split.map((g) => [g.join(), g])).values()];
      groups = unlike.filter((g) => !unlike.some((o) => o.length > g.length && g.every((k) => o.includes(k))));
    }
  }
  const sorted = groups.sort((a, b) => { const k = a.findIndex((v, i) => v !== b[i]); return k < 0 ? a.length - b.length : k >= b.length ? 1 : a[k] - b[k]; });
  const names = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
  return differ.map((_, i) => sorted.flatMap((g, place) => (g.includes(i) ? [names[place] ?? `[${place}]`] : [])).join(""));
}

/** The smallest true difference that is found 8 times in 10 (Miettinen 1968). */
export function detectable({ n, square: observed }: Paired, level: number): number {
  const square = observed || 2 / (n + 2), za = deviations(level), zb = deviations(0.6);
  let low = 0, high = Math.sqrt(square);
  for (let i = 0; i < 60; i++) {
    const middle = (low + high) / 2, enough = Math.sqrt(n) * middle >= za * Math.sqrt(square) + zb * Math.sqrt(Math.max(square - middle ** 2, 0));
    if (enough) high = middle; else low = middle;
  }
  return high;
}

/** Means of resampled questions, the same for all columns, where they are few enough; of many, means are normal anyway. */
export class Drawn {
  private means = new Map<Column, Float64Array>();
  private counts: Uint16Array[] = [];

  constructor(private size: number, private level: number) {}

  interval(column: Column): [number, number] {
    if (isBinary(column)) { const known = column.filter((v) => !Number.isNaN(v)); return wilson(known.reduce((x, y) => x + y, 0), known.length, this.level); }
    return this.size > LARGE ? this.normal([...column].filter((v) => !Number.isNaN(v))) : this.between(this.of(column));
  }

  difference(one: Column, other: Column, found: Paired): [number, number] {
    if (found.binary) return bonettPrice(found.wins, found.losses, found.n, this.level);
    if (this.size > LARGE) return this.normal(differences(one, other));
    const a = this.of(one), b = this.of(other);
    return this.between(a.map((v, i) => v - b[i]));
  }

  private normal(values: number[]): [number, number] {
    const m = meanOf(values), half = (deviations(this.level) * Math.sqrt(values.reduce((s, v) => s + (v - m) ** 2, 0))) / values.length;
    return [m - half, m + half];
  }

  private between(values: Float64Array): [number, number] {
    const sorted = values.filter((v) => !Number.isNaN(v)).sort(), tail = (1 - this.level) / 2;
    const at = (q: number) => { const x = q * (sorted.length - 1), i = Math.floor(x); return sorted[i] + (x - i) * ((sorted[i + 1] ?? sorted[i]) - sorted[i]); };
    return [at(tail), at(1 - tail)];
  }

  private of(column: Column): Float64Array {
    let found = this.means.get(column);
    if (!found) {
      if (!this.counts.length) this.draw();
      found = Float64Array.from(this.counts, (drawn) => {
        let sum = 0, n = 0;
        for (let i = 0; i < drawn.length; i++) if (drawn[i] && !Number.isNaN(column[i])) { sum += drawn[i] * column[i]; n += drawn[i]; }
        return n ? sum / n : NaN;
      });
      this.means.set(column, found);
    }
    return found;
  }

  private draw(): void {
    let state = 0x9e3779b9;  // xorshift: the same questions are drawn whenever the page is opened
    for (let r = 0; r < RESAMPLES; r++) {
      const drawn = new Uint16Array(this.size);
      for (let i = 0; i < this.size; i++) {
        state ^= state << 13; state ^= state >>> 17; state ^= state << 5;
        drawn[Math.floor(((state >>> 0) / 2 ** 32) * this.size)]++;
      }
      this.counts.push(drawn);
    }
  }
}
