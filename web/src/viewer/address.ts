// The whole view in the page's address, after the #: what is copied from there shows the same elsewhere.

import { RAMPS, type Ramp } from "../common/ramps";
import type { At } from "./api";
import type { Camera } from "./camera";

export type Measure = "mass" | "mean" | "max";
export type Scale = "log" | "linear";
export type Theme = "auto" | "light" | "dark";

export interface View {
  panes: At[];
  /** The pane that text, search and head grid belong to. */
  active: number;
  camera: Camera;
  measure: Measure;
  scale: Scale;
  /** The colours' range: decades below 1 where logarithmic, the top where linear (10 to the minus this). */
  decades: number;
  top: number;
  sinks: boolean;
  row: number | null;
  column: number | null;
  find: string;
  ramp: Ramp;
  theme: Theme;
}

export function initial(): View {
  return {
    panes: [],
    active: 0,
    camera: { column: 0, row: 0, scale: 0 },
    measure: "mass",
    scale: "log",
    decades: 4,
    top: 0.5,
    sinks: true,
    row: null,
    column: null,
    find: "",
    ramp: "ember",
    theme: "auto",
  };
}

export function written(view: View): string {
  const said = new URLSearchParams();
  said.set("at", view.panes.map((p) => [p.trace, p.layer, p.head, p.call, p.batch].join(".")).join("~"));
  if (view.active) said.set("pane", String(view.active));
  if (view.camera.scale) {
    said.set("x", rounded(view.camera.column));
    said.set("y", rounded(view.camera.row));
    said.set("scale", rounded(view.camera.scale));
  }
  const usual = initial();
  if (view.measure !== usual.measure) said.set("measure", view.measure);
  if (view.scale !== usual.scale) said.set("colours", view.scale);
  if (view.decades !== usual.decades) said.set("decades", String(view.decades));
  if (view.top !== usual.top) said.set("top", String(view.top));
  if (!view.sinks) said.set("sinks", "hidden");
  if (view.row !== null) said.set("query", String(view.row));
  if (view.column !== null) said.set("key", String(view.column));
  if (view.find) said.set("find", view.find);
  if (view.ramp !== usual.ramp) said.set("ramp", view.ramp);
  if (view.theme !== usual.theme) said.set("theme", view.theme);
  return said.toString();
}

/** What an address says; what it does not say, or says wrongly, is as usual. */
export function read(hash: string): View {
  const said = new URLSearchParams(hash.replace(/^#/, ""));
  const view = initial();
  for (const part of (said.get("at") ?? "").split("~").slice(0, 4)) {
    const [trace, layer, head, call, batch] = part.split(".").map(whole);
    if (trace != null && layer != null && head != null) {
      view.panes.push({ trace, layer, head, call: call ?? 0, batch: batch ?? 0 });
    }
  }
  view.active = whole(said.get("pane") ?? "") ?? 0;
  const [x, y, scale] = [said.get("x"), said.get("y"), said.get("scale")].map((s) => (s === null ? NaN : Number(s)));
  if (Number.isFinite(x) && Number.isFinite(y) && Number.isFinite(scale) && Number(scale) > 0) {
    view.camera = { column: Number(x), row: Number(y), scale: Number(scale) };
  }
  view.measure = one(said.get("measure"), ["mass", "mean", "max"], view.measure);
  view.scale = one(said.get("colours"), ["log", "linear"], view.scale);
  view.decades = between(said.get("decades"), 1, 9, view.decades);
  view.top = between(said.get("top"), 0, 5, view.top);
  view.sinks = said.get("sinks") !== "hidden";
  view.row = whole(said.get("query") ?? "");
  view.column = whole(said.get("key") ?? "");
  view.find = said.get("find") ?? "";
  view.ramp = one(said.get("ramp"), RAMPS, view.ramp);
  view.theme = one(said.get("theme"), ["auto", "light", "dark"], view.theme);
  return view;
}

function rounded(value: number): string {
  return String(Number(value.toPrecision(9)));
}

function whole(text: string): number | null {
  return /^\d{1,9}$/.test(text) ? Number(text) : null;
}

function one<T extends string>(text: string | null, known: readonly T[], usual: T): T {
  return known.find((value) => value === text) ?? usual;
}

function between(text: string | null, least: number, most: number, usual: number): number {
  const value = text === null ? NaN : Number(text);
  return Number.isFinite(value) ? Math.min(most, Math.max(least, value)) : usual;
}

/** Where the view is kept: in the page's address, or, in a frame, by whoever shows it. */
export interface Place {
  /** The view to begin with. */
  said: () => string;
  keep: (view: string) => void;
}

export const inAddress: Place = {
  said: () => location.hash,
  keep: (view) => history.replaceState(null, "", `#${view}`),
};
