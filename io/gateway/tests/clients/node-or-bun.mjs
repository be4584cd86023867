// The story in Node with `ws`, and in Bun with its own client: BASE and KEY are in the environment.
import { story } from './story.mjs';

const Socket = process.versions.bun ? WebSocket : (await import('ws')).WebSocket;
console.log(JSON.stringify(await story({ base: process.env.BASE, Socket, pinned: process.env.KEY })));
process.exit(0);
