import { mount } from "svelte";

import App from "./App.svelte";
import { read } from "./data";
import "./report.css";

const target = document.getElementById("app");
const data = document.getElementById("report");
if (target && data) {
  read(data.textContent ?? "").then(
    (report) => mount(App, { target, props: { report } }),
    (error: unknown) => {
      target.textContent = `This report cannot be shown: ${String(error)}`;
    },
  );
}
