// node http-proxy as its users run it: the upgrade is repeated towards one fixed address, and the two sockets are piped.
//
//     node --expose-gc proxy.mjs ws://127.0.0.1:9222/devtools/browser/...
//
// The first line on stdout is the port. A line on stdin is answered once garbage is collected; the end of stdin ends it.
import { createServer } from 'node:http';
import httpProxy from 'http-proxy';

const proxy = httpProxy.createProxyServer({ target: process.argv[2], ignorePath: true, changeOrigin: true });
proxy.on('error', (error, request, socket) => {
  console.error(error.message);
  socket.destroy();
});

const server = createServer((request, response) => response.writeHead(426).end());
server.on('upgrade', (request, socket, head) => proxy.ws(request, socket, head));
server.listen({ host: '127.0.0.1', port: 0, backlog: 2048 }, () => console.log(server.address().port));

process.stdin.on('data', () => {
  globalThis.gc();
  console.log('collected');
});
process.stdin.on('end', () => process.exit(0));
