// What the page is given: the data of a comparison (moco_toolkit_comparison), questions by column, runs.
export interface Estimate { mean: number; low: number; high: number; n: number }
export interface Versus { difference: number; low: number; high: number; n: number; wins: number; losses: number; p_value: number; test: string }
export interface Amount { value: number | null; at_least: boolean }
export interface Emergence { solved: number; open: number; share: number | null }
export type Role = "baseline" | "control" | "method";

export interface CostLine {
  seed: number; phase: string; role: string; model: string; saved: Record<string, number>;
  calls: Amount; prompt: Amount; completion: Amount; reasoning: Amount; cached_prompt: Amount; seconds: Amount; flops: Amount; money: Amount;
}

export interface System {
  name: string; label: string; role: Role; best_single: boolean; score: Estimate | null; seed_means: Record<string, number>;
  extra_metrics: Record<string, number>; subsets: Record<string, { mean: number; n: number }>; macro: { mean: number; low: number; high: number } | null; versus_best_single: Versus | null;
  questions: number; failed: number; unparsed: number; truncated: number; calls: number; cached_calls: number; status: string;
  left_out: string; warnings: string[]; error: string; p_holm: number | null; group: string; gap_closed: number | null;
  gap_closed_interval: [number, number] | null; emergence: Emergence | null; control_emergence: Record<string, Emergence>;
  seed_sd: number | null; verdict: { decision: "KEEP" | "DROP" | "UNDECIDED"; why: string } | null;
  versus_controls: Record<string, Versus>; control: string | null; control_of: string | null;
  cost_per_question: Record<string, Amount>; cost_times_best_single: Amount; costs: CostLine[]; pareto: boolean;
}

export interface Run {
  system: number; seed: number; folder: string; status: string; error: string; warnings: string[]; questions: number;
  failed: number; facts: Record<string, any>;
}

export interface Questions {
  ids: string[]; begins: string[]; subsets: string[]; subset: number[];
  scores: (number | null)[][]; answers: string[][]; marks: string[];
}

export interface Section {
  dataset: string; seeds: number[]; metric: string; best_single_chosen_on: string | null; rows: System[]; binary: boolean;
  oracle: number | null; random_pick: number | null; chance: number | null; rule: { level: number; gain: number };
  detectable: number | null; cost_unit: string; curve: [number, number][]; findings: string[]; pool: string[]; runs: Run[];
  pairs: { rows: [number, number, number, number, number, number, number, number][]; test: string; scored: number[] };
  questions: Questions; units: { ids: string[]; scores: (number | null)[][] } | null; replies: number[]; transcripts: number[];
}

export interface Grid {
  datasets: { system: string; role: Role; datasets: number; score: number; low: number; high: number; few: boolean; difference: [number, number, number] | null }[];
  study: { cells: number; rows: [quantity: string, here: number | null, published: number | null, what: string][] } | null;
}

export interface Summary { written: string; notes: string[]; problems: string[]; grid: Grid; sections: Section[] }

export interface Reply {
  text: string; finish: string; spans: [string, string, number][]; abstained: boolean; meta: Record<string, any>;
  noted: Record<string, any>; answer: string; read: string; score: number | null; error: string; seconds: number | null;
}
export interface Asked {
  asked: string; system: string; history: [string, string][]; references: string[]; choice: number | null; replies: (Reply | null)[];
}
export type Call = [model: string, kind: string, cached: boolean, prompt: number, completion: number, seen: any, said: any];
