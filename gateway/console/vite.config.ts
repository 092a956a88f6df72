import { defineConfig } from 'vite';

// Everything the screen needs is in dist: the gateway embeds it and a screen has no internet.
export default defineConfig({
  base: './',
  build: {
    target: 'es2022',
    // The polyfill would be an inline script, which the gateway's content security policy refuses.
    modulePreload: { polyfill: false },
    chunkSizeWarningLimit: 1500,
    rollupOptions: {
      output: {
        // The map's worker is an .mjs file; not every server knows that this is JavaScript.
        assetFileNames: (asset) =>
          asset.names.some((name) => name.endsWith('.mjs'))
            ? 'assets/[name]-[hash].js'
            : 'assets/[name]-[hash][extname]',
      },
    },
  },
  server: {
    // One test reads the gateway's names of faults.
    fs: { allow: ['../..'] },
    proxy: {
      '/api': { target: 'http://127.0.0.1:8080', ws: true },
      '^/[^/]+/[^/]+/whep': 'http://127.0.0.1:8080',
    },
  },
});
