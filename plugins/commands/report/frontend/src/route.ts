// Where the reader is, in the address after "#": a view, a question, and what is selected. All of it survives sharing.
import { useEffect, useState } from "preact/hooks";

export const VIEWS = ["verdict", "differences", "questions", "cost", "audit", "provenance"] as const;
export type View = (typeof VIEWS)[number] | "question";
export interface Route { view: View; question: string; given: Record<string, string> }

export function parse(hash: string): Route {
  const [path, query = ""] = hash.replace(/^#\/?/, "").split("?", 2);
  const [view, ...rest] = path.split("/");
  const known = view === "question" || (VIEWS as readonly string[]).includes(view);
  return { view: known ? (view as View) : "verdict", question: decoded(rest.join("/")), given: Object.fromEntries(new URLSearchParams(query)) };
}

function decoded(text: string): string {
  try { return decodeURIComponent(text); } catch { return text; }
}

export function href(view: View, given: Record<string, string | undefined>, question = ""): string {
  const kept = Object.entries(given).filter(([, v]) => v) as [string, string][];
  const query = new URLSearchParams(kept).toString();
  return `#/${view}${question ? `/${encodeURIComponent(question)}` : ""}${query ? `?${query}` : ""}`;
}

export function useRoute(): Route {
  const [route, set] = useState(() => parse(location.hash));
  useEffect(() => {
    const changed = () => set(parse(location.hash));
    addEventListener("hashchange", changed);
    return () => removeEventListener("hashchange", changed);
  }, []);
  return route;
}

/** Change what is selected; nothing is added to the browser's history. */
export function select(route: Route, change: Record<string, string | undefined>): void {
  history.replaceState(null, "", href(route.view, { ...route.given, ...change }, route.question));
  dispatchEvent(new HashChangeEvent("hashchange"));
}
