// Blocks of the page: base64 of zlib streams of JSON, inflated when they are wanted.
import type { Asked, Call, Section, Summary } from "./types";

interface Block { x: string[]; q: Record<string, any> }

export async function inflate(text: string): Promise<any> {
  const bytes = Uint8Array.from(atob(text.trim()), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return JSON.parse(await new Response(stream).text());
}

export const readSummary = (): Promise<Summary> => inflate(document.getElementById("summary")!.textContent!);

const open = new Map<string, Promise<Block>>();
const KEPT = 24;

async function block(id: string): Promise<Block> {
  // the application runs before the browser has read the whole file
  if (!document.getElementById(id) && document.readyState === "loading")
    await new Promise((done) => document.addEventListener("DOMContentLoaded", done, { once: true }));
  const element = document.getElementById(id);
  if (!element) throw new Error(`the file was cut short: it lacks ${id}`);
  return inflate(element.textContent!);
}

function wanted(id: string): Promise<Block> {
  let found = open.get(id);
  if (!found) {
    found = block(id);
    open.set(id, found);
    if (open.size > KEPT) open.delete(open.keys().next().value!);
  }
  return found;
}

/** "~" and "^" stand before the number of a text: in this block, or in that of the question's replies. */
function unpacked(value: any, texts: string[], known: string[]): any {
  if (typeof value === "string") {
    const from = value[0] === "~" ? texts : value[0] === "^" ? known : null;
    return from ? from[Number(value.slice(1))] : value;
  }
  if (Array.isArray(value)) return value.map((v) => unpacked(v, texts, known));
  if (value && typeof value === "object") return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, unpacked(v, texts, known)]));
  return value;
}

async function fetched(section: Section, number: number, question: number, kind: "replies" | "transcripts"): Promise<any> {
  if (section[kind][question] < 0) return null;
  const [{ x, q }, replies] = await Promise.all([wanted(`${kind}${section[kind][question]}`), wanted(`replies${section.replies[question]}`)]);
  return unpacked(q[`${number}.${question}`], x, replies.x);
}

export const askedOf = (section: Section, number: number, question: number): Promise<Asked | null> => fetched(section, number, question, "replies");
export const callsOf = (section: Section, number: number, question: number): Promise<Call[][] | null> => fetched(section, number, question, "transcripts");
