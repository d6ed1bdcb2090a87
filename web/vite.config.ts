import { svelte } from "@sveltejs/vite-plugin-svelte";
import { defineConfig } from "vite";

// Two pages, each one script and one style sheet under a fixed name, so that the built files can be committed and
// compared: `vite build --mode viewer` (served by `sightline view`) and `--mode report` (inlined into one HTML file).
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
      output: { entryFileNames: `${mode}.js`, assetFileNames: `${mode}[extname]`, codeSplitting: false },
    },
  },
}));
