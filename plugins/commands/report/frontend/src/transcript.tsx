// Who saw what and said what: one lane per model, in the order of the calls; votes, route scores, and who wrote which words.
import { useState } from "preact/hooks";
import { quantity } from "./format";
import { Said, visible } from "./parts";
import type { Asked, Call } from "./types";

export const colour = (pool: string[], model: string): Record<string, string> => ({ "--model": pool.includes(model) ? `var(--model-${(pool.indexOf(model) % 8) + 1})` : "var(--quiet)" }) as Record<string, string>;

const textOf = (said: any): string | null => (typeof said === "string" ? said : said && typeof said.text === "string" ? said.text : null);
const flat = (text: string) => text.replace(/\s/g, "");

/** For each call the earlier calls whose replies it reads, in groups: of equal replies nobody can tell which one was read. */
export function reads(calls: Call[]): number[][][] {
  const replies = calls.map((c) => flat(textOf(c[6]) ?? ""));
  return calls.map((c, i) => {
    const seen = turns(c[5]).map(([, text]) => text).join("\n");
    if (seen.length > 400_000) return [];
    const lines = new Set(seen.split("\n").map(flat)), all = flat(seen), found = new Map<string, number[]>();
    replies.slice(0, i).forEach((r, n) => {
      if (r && (lines.has(r) || (r.length > 12 && all.includes(r)))) found.set(r, [...(found.get(r) ?? []), n + 1]);
    });
    return [...found.values()];
  });
}

function turns(seen: any): [string, string][] {
  if (seen && Array.isArray(seen.messages)) return seen.messages.map((m: any) => (Array.isArray(m) ? [String(m[0]), String(m[1])] : ["", JSON.stringify(m)]));
  if (seen && typeof seen.text === "string") return [["text", seen.text]];
  return seen == null ? [] : [["input", JSON.stringify(seen, null, 1)]];
}

const MOST = 60;

export function Transcript({ calls, asked, pool }: { calls: Call[]; asked: Asked; pool: string[] }) {
  const [all, setAll] = useState(false);
  if (!calls.length) return <p class="quiet">No model was called.</p>;
  const shown = all ? calls : calls.slice(0, MOST), read = reads(shown);
  const lanes = [...new Set([...pool, ...calls.map((c) => c[0])])].filter((m) => calls.some((c) => c[0] === m));
  return (
    <>
      <div class="lanes" style={{ "--lanes": String(lanes.length) } as Record<string, string>}>
        {lanes.map((m, i) => <h4 style={{ gridColumn: String(i + 1), gridRow: "1", ...colour(pool, m) }}><bdi>{m}</bdi></h4>)}
        {waves(shown, read).map(([call, row], i) => <OneCall call={call} number={i + 1} reads={read[i]} lane={lanes.indexOf(call[0]) + 1} row={row + 2} asked={asked} pool={pool} />)}
      </div>
      {calls.length > shown.length && <button class="more" onClick={() => setAll(true)}>{calls.length - shown.length} more calls</button>}
    </>
  );
}

/** Rows for calls: those of different models that do not read one another stand side by side. */
function waves(calls: Call[], read: number[][][]): [Call, number][] {
  const rows: number[] = [], last = new Map<string, number>();
  let floor = 0;
  return calls.map((call, i) => {
    const after = Math.max(-1, ...read[i].map(([first]) => rows[first - 1]));
    const row = Math.max(floor, after + 1, (last.get(call[0]) ?? -1) + 1);
    if (after >= floor) floor = row;
    last.set(call[0], row);
    rows.push(row);
    return [call, row];
  });
}

function OneCall({ call, number, reads, lane, row, asked, pool }: { call: Call; number: number; reads: number[][]; lane: number; row: number; asked: Asked; pool: string[] }) {
  const [model, kind, cached, prompt, completion, seen, said] = call;
  const [open, setOpen] = useState(false);
  const text = textOf(said), reasoning = said && typeof said === "object" && typeof said.reasoning === "string" ? said.reasoning : "";
  const plain = turns(seen).length === 1 && turns(seen)[0][1] === asked.asked;
  return (
    <div class="call" style={{ gridColumn: String(lane), gridRow: String(row), ...colour(pool, model) }} aria-label={`call ${number}, ${model}`}>
      <p class="meta">
        <b>{number}</b> <span class="lane-name"><bdi>{model}</bdi></span> {kind !== "generate" && <span>{kind}</span>}
        <span title="tokens read and written">{quantity(prompt ?? 0)} + {quantity(completion ?? 0)}</span>
        <span class={cached ? "cached" : "computed"}>{cached ? "cached" : "computed"}</span>
        {reads.length > 0 && <span title="the replies that stand in what it read; = joins those that say the same">reads {reads.map((r) => r.join("=")).join(", ")}</span>}
      </p>
      {plain ? <p class="meta">saw the question as asked</p>
        : seen != null && <button class="plain seen" aria-expanded={open} onClick={() => setOpen(!open)}>{open ? "hide what it saw" : "what it saw"}</button>}
      {open && turns(seen).map(([role, t]) => <div class="turn"><small>{role}</small><Said text={asked.asked.length > 60 ? t.split(asked.asked).join("[the question]") : t} /></div>)}
      {open && seen && Array.isArray(seen.continuations) && <div class="turn"><small>continuations</small><Said text={seen.continuations.map(String).join(" | ")} /></div>}
      {reasoning && <details><summary>reasoning</summary><Said text={reasoning} /></details>}
      {text != null ? <Said text={text || "(nothing)"} class="answer" /> : <Scored said={said} options={seen && Array.isArray(seen.continuations) ? seen.continuations.map(String) : []} />}
    </div>
  );
}

/** Scores of given continuations as bars of their probabilities; anything else as it is. */
function Scored({ said, options }: { said: any; options: string[] }) {
  if (Array.isArray(said) && said.length === options.length && said.length > 0 && said.every((v) => typeof v === "number" && v <= 0)) {
    const most = Math.max(...said), weights = said.map((v: number) => Math.exp(v - most)), all = weights.reduce((a, b) => a + b, 0);
    return <Bars of={options.map((o, i): [string, number] => [o, weights[i] / all])} unit="share" />;
  }
  return <Said text={typeof said === "string" ? said : JSON.stringify(said, null, 1) ?? "(nothing)"} class="data" />;
}

function Bars({ of, pool, unit }: { of: [string, number][]; pool?: string[]; unit: string }) {
  const most = Math.max(...of.map(([, v]) => Math.abs(v)), 1e-12);
  return (
    <table class="bars">
      <tbody>{of.map(([name, v]) => (
        <tr style={pool?.includes(name) ? colour(pool, name) : undefined}>
          <th scope="row"><bdi>{name}</bdi></th>
          <td><span class="fill" style={{ width: `${(100 * Math.abs(v)) / most}%` }} /></td>
          <td class="num" title={unit}>{Number(v.toPrecision(3))}</td>
        </tr>
      ))}</tbody>
    </table>
  );
}

/** What a method or metric noted: numbers by name as bars, rows of facts as a table, the rest as it is. */
export function Noted({ meta, pool, title }: { meta: Record<string, any>; pool: string[]; title: string }) {
  const entries = Object.entries(meta ?? {}).filter(([, v]) => !(v == null || (Array.isArray(v) && !v.length)));
  if (!entries.length) return null;
  const simple = entries.filter(([, v]) => typeof v !== "object"), rest = entries.filter(([, v]) => typeof v === "object");
  return (
    <details class="noted" open={rest.length > 0 && rest.length < 6}>
      <summary>{title}</summary>
      {simple.length > 0 && <dl class="facts">{simple.map(([k, v]) => <><dt>{k.replaceAll("_", " ")}</dt><dd><Said text={typeof v === "number" ? String(Number(v.toPrecision(6))) : String(v)} /></dd></>)}</dl>}
      <div class="noted-parts">{rest.map(([k, v]) => <div><h4>{k.replaceAll("_", " ")}</h4><Value of={v} pool={pool} /></div>)}</div>
    </details>
  );
}

function Value({ of: v, pool }: { of: any; pool: string[] }) {
  const numbers = !Array.isArray(v) && Object.values(v).length > 0 && Object.values(v).length <= 40 && Object.values(v).every((n) => typeof n === "number");
  if (numbers) return <Bars of={Object.entries(v) as [string, number][]} pool={pool} unit="" />;
  if (Array.isArray(v) && v.length <= 60 && v.every((r) => r && typeof r === "object" && !Array.isArray(r))) {
    const names = [...new Set(v.flatMap((r) => Object.keys(r)))].slice(0, 8);
    return (
      <div class="scroll"><table class="small">
        <thead><tr>{names.map((n) => <th scope="col">{n.replaceAll("_", " ")}</th>)}</tr></thead>
        <tbody>{v.map((r) => <tr>{names.map((n) => <td style={n === "model" ? colour(pool, r[n]) : undefined} class={n === "model" ? "of-model" : ""}><bdi>{cell(r[n])}</bdi></td>)}</tr>)}</tbody>
      </table></div>
    );
  }
  const simple = (r: any) => r == null || typeof r !== "object";
  if (Array.isArray(v) && v.every(simple)) return <Said text={v.map(cell).join(", ")} />;
  if (Array.isArray(v) && v.length <= 60 && v.every((r) => Array.isArray(r) && r.length <= 12 && r.every(simple)))
    return <div class="scroll"><table class="small"><tbody>{v.map((r, i) => <tr><th scope="row" class="quiet">{i}</th>{r.map((x: any) => <td><bdi>{cell(x)}</bdi></td>)}</tr>)}</tbody></table></div>;
  return <Said text={JSON.stringify(v, null, 1)} class="data" />;
}

const cell = (v: any): string => (v == null ? "" : typeof v === "number" ? String(Number(v.toPrecision(4))) : typeof v === "object" ? JSON.stringify(v) : String(v));

/** A reply coloured by the model that wrote each piece. */
export function Spans({ spans, pool }: { spans: [string, string, number][]; pool: string[] }) {
  const tokens = new Map<string, number>();
  for (const [model, , n] of spans) tokens.set(model, (tokens.get(model) ?? 0) + (n || 0));
  const all = [...tokens.values()].reduce((a, b) => a + b, 0) || 1;
  return (
    <>
      <div class="said spans" dir="auto">{spans.map(([model, text, n]) => <span style={colour(pool, model)} title={`${model}, ${n} tokens`}>{visible(text)}</span>)}</div>
      <ul class="who-wrote">{[...tokens].map(([m, n]) => <li style={colour(pool, m)}><i /><bdi>{m}</bdi> <span class="quiet">{n} tokens, {Math.round((100 * n) / all)} %</span></li>)}</ul>
    </>
  );
}
