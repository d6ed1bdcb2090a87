// Everything that is drawn on the canvas takes its colours from here; what the browser lays out takes them from the
// style sheet, which has the same.

import { type Ramp, ramp } from "../common/ramps";

export interface Palette {
  dark: boolean;
  paper: string;
  outside: string;
  ink: string;
  soft: string;
  track: string;
  line: string;
  /** What is selected, and what was found. */
  chosen: string;
  found: string;
  hidden: string;
  colours: Uint32Array;
}

const known = new Map<string, Palette>();

export function palette(name: Ramp, dark: boolean): Palette {
  const id = `${name} ${dark}`;
  let made = known.get(id);
  if (!made) {
    made = dark
      ? {
          dark,
          paper: "#15181c",
          outside: "#0e1013",
          ink: "#e8e6e1",
          soft: "#9aa0a8",
          track: "#5b6470",
          line: "#2e333a",
          chosen: "#4cc2e6",
          found: "#b6e34c",
          hidden: "#2a2f36",
          colours: ramp(name, dark),
        }
      : {
          dark,
          paper: "#fcfbf9",
          outside: "#f1efeb",
          ink: "#1d2126",
          soft: "#5d646d",
          track: "#a3a8ae",
          line: "#dcd9d2",
          chosen: "#0072a3",
          found: "#3f7d00",
          hidden: "#e6e3dd",
          colours: ramp(name, dark),
        };
    known.set(id, made);
  }
  return made;
}
