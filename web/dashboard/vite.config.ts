import { fileURLToPath } from 'node:url';
import { defineConfig } from 'vite';

// Relative URLs only: the door may serve the page below any prefix. Nothing inline: its policy forbids that.
export default defineConfig({
  base: './',
  resolve: { alias: { '@sealtide/verify': fileURLToPath(new URL('../verify/build/src/index.js', import.meta.url)) } },
  oxc: { jsx: { runtime: 'automatic', importSource: 'preact' } },
  build: {
    target: 'es2022',
    // The directory stays, with the file that keeps it in the checkout.
    emptyOutDir: false,
    assetsInlineLimit: 0,
    cssCodeSplit: false,
    modulePreload: { polyfill: false },
    reportCompressedSize: false,
  },
});
