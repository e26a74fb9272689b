// Blocks of the page: base64 of zlib streams of JSON, inflated when they are wanted.
import type { Asked, Call, Summary } from "./types";

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

function unpacked(value: any, texts: string[]): any {
  if (typeof value === "string") return value.startsWith("~") ? texts[Number(value.slice(1))] : value;
  if (Array.isArray(value)) return value.map((v) => unpacked(v, texts));
  if (value && typeof value === "object") return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, unpacked(v, texts)]));
  return value;
}

async function fetched(kind: string, place: number, section: number, question: number): Promise<any> {
  if (place < 0) return null;
  const { x, q } = await wanted(`${kind}${place}`);
  return unpacked(q[`${section}.${question}`], x);
}

export const askedOf = (places: number[], section: number, question: number): Promise<Asked | null> =>
  fetched("replies", places[question], section, question);
export const callsOf = (places: number[], section: number, question: number): Promise<Call[][] | null> =>
  fetched("transcripts", places[question], section, question);
