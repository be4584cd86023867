// npm ws on Node: an echo, and a message to all for each text "all:N" of N bytes. Prints its port.
import { WebSocketServer } from 'ws';

const server = new WebSocketServer({ host: '127.0.0.1', port: 0, perMessageDeflate: false, backlog: 4096 }, () => {
  console.log(server.address().port);
});
server.on('connection', (socket) => {
  socket._socket.setNoDelay(true);
  socket.on('message', (bytes, isBinary) => {
    const told = isBinary ? '' : bytes.toString();
    if (!told.startsWith('all:')) return socket.send(bytes, { binary: isBinary });
    const message = 'x'.repeat(Number(told.slice(4)));
    for (const client of server.clients) client.send(message);
  });
});
