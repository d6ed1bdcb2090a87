import { svelte } from "@sveltejs/vite-plugin-svelte";
import { defineConfig } from "vite";

// Each is one script and at most one style sheet under a fixed name, so that the built files can be committed and
// compared: `vite build --mode viewer` (a page, served by `sightline view`, or shown in a frame), `--mode report` (a
// page, inlined into one HTML file) and `--mode notebook` (a module that shows the viewer's page for anywidget).
export default defineConfig(({ mode }) => ({
  plugins: [svelte()],
  base: "./",
  publicDir: `src/${mode}/public`,
  build: {
    outDir: `../src/sightline/${mode}/static`,
    emptyOutDir: true,
    target: "es2023",
    modulePreload: { polyfill: false },
    rolldownOptions: {
      input: `src/${mode}/main.ts`,
      ...(mode === "notebook" ? { preserveEntrySignatures: "strict" as const } : {}),
      output: { entryFileNames: `${mode}.js`, assetFileNames: `${mode}[extname]`, codeSplitting: false },
    },
  },
}));
