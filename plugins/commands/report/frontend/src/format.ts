import type { Amount, System } from "./types";

const DASH = "–";
export const score = (v: number | null | undefined) => (v == null ? DASH : v.toFixed(3));
export const signed = (v: number | null | undefined) => (v == null ? DASH : `${v < 0 ? "−" : "+"}${Math.abs(v).toFixed(3)}`);
export const range = (low: number, high: number, f = score) => `${f(low)} to ${f(high)}`;
export const p = (v: number | null | undefined) => (v == null ? "" : v < 0.001 ? "< 0.001" : v.toFixed(3));
export const percent = (v: number | null | undefined, digits = 0) => (v == null ? DASH : `${(100 * v).toFixed(digits).replace("-", "−")}\u00a0%`);
export const count = (v: number | null | undefined) => (v == null ? DASH : Math.round(v).toLocaleString("en"));
export const plural = (n: number, what: string) => `${count(n)} ${what}${n === 1 ? "" : "s"}`;

export function quantity(v: number): string {
  if (v === 0) return "0";
  const size = Math.abs(v);
  if (size >= 1e6) return v.toLocaleString("en", { notation: "compact", maximumSignificantDigits: 3 }).replace(/([KMBT])$/, " $1").replace("B", "G");
  return size >= 100 ? Math.round(v).toLocaleString("en") : v.toPrecision(3).replace(/\.?0+$/, "");
}
export const large = (v: number) => (v >= 1e6 ? v.toExponential(2).replace("e+", "e") : quantity(v));
export const amount = (a: Amount | undefined, f = quantity) => (!a || a.value == null ? "?" : `${a.at_least ? "≥ " : ""}${f(a.value)}`);
export const times = (a: Amount) =>
  a.value == null ? "" : `${a.at_least ? "≥ " : ""}${a.value < 10 ? Number(a.value.toPrecision(2)) : Math.round(a.value).toLocaleString("en")}×`;
export const kind = (s: System) => (s.role === "baseline" ? "single model" : s.role === "control" ? `control: ${s.control || "control"}` : "method");
export const date = (seconds: unknown) => (typeof seconds === "number" ? new Date(seconds * 1000).toISOString().slice(0, 16).replace("T", " ") + " UTC" : DASH);

export const QUANTITIES: Record<string, string> = {
  tokens: "tokens", money: "money", seconds: "seconds of model time", flops: "FLOPs", calls: "calls",
  prompt: "tokens read", completion: "tokens written", reasoning: "reasoning tokens",
};

/** A name where there is little room: names that begin alike differ at their ends. */
export function brief(name: string, most = 24): string {
  const letters = [...name], tail = Math.floor(most * 0.45);
  return letters.length <= most ? name : `${letters.slice(0, most - tail - 1).join("")}…${letters.slice(-tail).join("")}`;
}
