// Small pieces that several views share.
import { type ComponentChildren, type JSX, options } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { brief } from "./format";
import type { Section, System } from "./types";

export function Name({ of: s, plain = false }: { of: System; plain?: boolean }) {
  return (
    <span class={`name ${s.role}`}>
      <bdi>{breakable(s.name)}</bdi>
      {!plain && s.best_single && <span class="tag" title="the best single model, which methods are compared with">best single</span>}
      {!plain && s.role === "control" && <span class="tag quiet">control</span>}
    </span>
  );
}

/** A name that may be broken where its words end. */
export const breakable = (name: string): ComponentChildren => name.split(/(?<=[_/.:+-])(?=.)/).flatMap((part, i) => (i ? [<wbr />, part] : [part]));

export function Brief({ name, most }: { name: string; most?: number }) {
  const shown = brief(name, most);
  return shown === name ? <bdi>{name}</bdi> : <bdi title={name} aria-label={name}>{shown}</bdi>;
}

export function Verdict({ of: v }: { of: System["verdict"] }) {
  return v ? <span class={`verdict ${v.decision.toLowerCase()}`} title={v.why}>{v.decision.toLowerCase()}</span> : null;
}

/** A mark for a score, readable without its colour. */
export function Mark({ score, mark = ".", word = false }: { score: number | null; mark?: string; word?: boolean }) {
  const [kind, sign, name] = markOf(score, mark);
  const strength = kind === "partly" ? { opacity: String(0.35 + 0.5 * Math.min(1, Math.max(0, score!))) } : undefined;
  return <span class={`mark ${kind}`}><i aria-hidden="true" style={strength}>{sign}</i><span class={word ? "" : "unseen"}>{name}</span></span>;
}

export function markOf(score: number | null, mark: string): [kind: string, sign: string, name: string] {
  if (mark === "-") return ["absent", "", "not recorded"];
  if (mark === "f") return ["failed", "!", "failed"];
  if (score == null) return ["absent", "·", "not scored"];
  if (score < 0 || score > 1) return ["partly", String(Number(score.toPrecision(2))), `scores ${score.toPrecision(3)}`];
  if (score >= 1) return ["right", "✓", "right"];
  if (score > 0) return ["partly", String(Math.round(score * 100)), `scores ${score.toFixed(2)}`];
  return mark === "u" ? ["wrong", "?", "no answer read"] : mark === "c" ? ["wrong", "…", "wrong, cut off"] : ["wrong", "✕", "wrong"];
}

export function Choose(props: {
  label: string; value: string; options: [string, string][]; onChange: (value: string) => void; id?: string;
}) {
  return (
    <label class="choose">
      {props.label && <span>{props.label}</span>}
      <select id={props.id} aria-label={props.label || "section"} value={props.value} onChange={(e) => props.onChange(e.currentTarget.value)}>
        {props.options.map(([value, name]) => <option value={value} selected={value === props.value}>{name}</option>)}
      </select>
    </label>
  );
}

const FIRST = 3000;

/** Text of models, as it is; of long ones the beginning until more is asked for. */
export function Said({ text, class: name = "" }: { text: string; class?: string }) {
  const [shown, show] = useState(FIRST);
  const cut = text.length > shown * 1.2;
  return (
    <div class={`said ${name}`} dir="auto">
      {visible(cut ? text.slice(0, shown) : text)}
      {cut && (
        <button class="more" onClick={() => show(Math.min(shown * 30, text.length))}>
          … {(text.length - shown).toLocaleString("en")} more characters
        </button>
      )}
    </div>
  );
}

/** Control characters as pictures of themselves, and marks that turn the direction of what follows as their names. */
export function visible(text: string): ComponentChildren {
  const parts = text.split(/([\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f\u200e\u200f\u202a-\u202e\u2066-\u2069])/);
  return parts.length === 1 ? text : parts.map((part, i) => (i % 2 ? <span class="control">{picture(part)}</span> : part));
}

const picture = (c: string) => (c.charCodeAt(0) < 32 ? String.fromCharCode(0x2400 + c.charCodeAt(0)) : `U+${c.charCodeAt(0).toString(16).toUpperCase().padStart(4, "0")}`);

interface RowsProps {
  count: number; height: number; label: string; header?: JSX.Element; row: (i: number, active: boolean) => JSX.Element;
  open: (i: number) => void; empty: string; class?: string; tall?: boolean;
}

const PRINTED = 500;

/** Whether the page is being printed: what is not on the screen is drawn then, too, before the browser goes on. */
function usePrinting(): boolean {
  const [printing, set] = useState(false);
  useEffect(() => {
    const at = (to: boolean) => () => {
      const before = options.debounceRendering;
      options.debounceRendering = (draw) => draw();
      set(to);
      options.debounceRendering = before;
    };
    const begin = at(true), end = at(false);
    addEventListener("beforeprint", begin);
    addEventListener("afterprint", end);
    return () => { removeEventListener("beforeprint", begin); removeEventListener("afterprint", end); };
  }, []);
  return printing;
}

/** A list that draws what can be seen of it: up, down, page up and down, home and end move in it, enter opens. */
export function Rows(props: RowsProps) {
  const box = useRef<HTMLDivElement>(null);
  const head = useRef<HTMLDivElement>(null);
  const [top, setTop] = useState(0);
  const [active, setActive] = useState(0);
  const [size, setSize] = useState(600);
  useEffect(() => {
    if (!box.current) return;
    const watch = new ResizeObserver(() => box.current && setSize(box.current.clientHeight));
    watch.observe(box.current);
    return () => watch.disconnect();
  }, []);
  useEffect(() => setActive((a) => Math.min(a, Math.max(0, props.count - 1))), [props.count]);
  const printing = usePrinting();
  const first = printing ? 0 : Math.max(0, Math.floor(top / props.height) - 6);
  const last = Math.min(props.count, printing ? PRINTED : Math.ceil((top + size) / props.height) + 6);
  const go = (to: number) => {
    const next = Math.max(0, Math.min(props.count - 1, to));
    setActive(next);
    const b = box.current!, place = next * props.height, above = head.current?.offsetHeight ?? 0;
    if (place < b.scrollTop) b.scrollTop = place;
    else if (place + props.height > b.scrollTop + b.clientHeight - above) b.scrollTop = place + props.height - b.clientHeight + above;
  };
  const page = Math.max(1, Math.floor(size / props.height) - 2);
  const moves: Record<string, number> = { ArrowDown: active + 1, ArrowUp: active - 1, PageDown: active + page, PageUp: active - page, Home: 0, End: props.count - 1 };
  const key = (e: KeyboardEvent) => {
    if (e.key in moves) { e.preventDefault(); go(moves[e.key]); }
    else if (e.key === "Enter" && props.count) { e.preventDefault(); props.open(active); }
  };
  return (
    <div ref={box} class={`rows ${props.class ?? ""} ${props.tall ? "tall" : ""}`} tabIndex={0} role="grid" aria-label={props.label}
      aria-rowcount={props.count} aria-activedescendant={props.count ? `${props.label}-${active}`.replace(/\s/g, "-") : undefined}
      onScroll={(e) => setTop(e.currentTarget.scrollTop)} onKeyDown={key}>
      {props.header && <div class="head" ref={head}>{props.header}</div>}
      {!props.count && <p class="empty">{props.empty}</p>}
      <div class="space" style={{ height: `${props.count * props.height}px` }}>
        {Array.from({ length: Math.max(0, last - first) }, (_, k) => first + k).map((i) => (
          <div key={i} id={`${props.label}-${i}`.replace(/\s/g, "-")} role="row" aria-rowindex={i + 1} class={i === active ? "row active" : "row"}
            style={{ top: `${i * props.height}px`, height: `${props.height}px` }}
            onClick={() => { setActive(i); props.open(i); }}>
            {props.row(i, i === active)}
          </div>
        ))}
      </div>
      {printing && last < props.count && <p class="empty">The first {last} of {props.count.toLocaleString("en")}; filters choose others.</p>}
    </div>
  );
}

/** Text of ours in which an option such as --size stays in one piece. */
export const worded = (text: string): ComponentChildren => text.split(/(--[a-z][a-z-]*)/).map((part, i) => (i % 2 ? <code class="option">{part}</code> : part));

export function Facts({ of }: { of: [string, ComponentChildren][] }) {
  return <dl class="facts">{of.filter(([, v]) => v != null && v !== "").map(([k, v]) => <><dt>{k}</dt><dd>{v}</dd></>)}</dl>;
}

export const systems = (section: Section, which: (s: System) => boolean = () => true): [string, string][] =>
  [...section.rows].reverse().filter(which).map((s) => [s.name, s.best_single ? `${s.name} (best single)` : s.name]);
