// Bun.serve: an echo, and a message to all for each text "all:N" of N bytes. Prints its port.
const server = Bun.serve({
  hostname: '127.0.0.1',
  port: 0,
  fetch(request, server) {
    if (!server.upgrade(request)) return new Response('{"token":"none"}');
  },
  websocket: {
    perMessageDeflate: false,
    open(socket) {
      socket.subscribe('all');
    },
    message(socket, message) {
      if (typeof message !== 'string' || !message.startsWith('all:')) return socket.send(message);
      server.publish('all', 'x'.repeat(Number(message.slice(4))));
    },
  },
});
console.log(server.port);
