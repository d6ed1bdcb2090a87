import "./theme.css";

import { mount } from "svelte";

import App from "./App.svelte";
import { through } from "./api";
import { keptIn } from "./app.svelte";
import { Messages } from "./messages";

const target = document.getElementById("app");

/** In a frame: whoever shows it sends the view to begin with, and a port to ask through. */
function handed(event: MessageEvent<{ view?: unknown }>): void {
  const port = event.ports[0];
  if (event.source !== window.parent || !port || !target) return;
  removeEventListener("message", handed);
  const messages = new Messages(port);
  const view = typeof event.data.view === "string" ? event.data.view : "";
  through(messages.ask);
  keptIn({ said: () => view, keep: messages.keep });
  mount(App, { target });
}

if (target?.dataset["framed"] !== undefined) addEventListener("message", handed);
else if (target) mount(App, { target });
