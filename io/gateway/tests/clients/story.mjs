// What a client of the door does, told once for every JavaScript engine: Node with ws, Bun, a page in Chromium.
// `Socket` is its WebSocket class; `pinned` is the base64 of the Ed25519 key that the user trusts, or null.

const bytesOf = (base64) => Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));

/// A session whose messages can be waited for, one after the other.
export class Session {
  constructor(Socket, url, protocols) {
    this.texts = [];
    this.takers = [];
    this.socket = new Socket(url, protocols);
    this.opened = new Promise((resolve, reject) => {
      this.socket.onopen = () => resolve(this.socket.protocol);
      this.socket.onerror = () => reject(new Error('refused'));
    });
    this.closed = new Promise((resolve) => {
      this.socket.onclose = (event) => resolve({ code: event.code, clean: event.wasClean });
    });
    this.socket.onmessage = (event) => {
      const taker = this.takers.shift();
      if (taker) taker(event.data);
      else this.texts.push(event.data);
    };
  }

  text() {
    return this.texts.length > 0
      ? Promise.resolve(this.texts.shift())
      : new Promise((resolve) => this.takers.push(resolve));
  }

  async ask(message) {
    this.socket.send(JSON.stringify(message));
    return this.text();
  }
}

/// What a user may be shown beside a signed answer. The signed bytes are cut out of the text: they are not made again.
export async function badge(text, pinned) {
  const { data } = JSON.parse(text);
  if (pinned === null) return 'signed, key not pinned';
  const key = await crypto.subtle.importKey('raw', bytesOf(pinned), { name: 'Ed25519' }, false, ['verify']);
  const bumped = text.slice(text.indexOf('"bumped":') + 9, text.indexOf(',"changes":'));
  const message = new TextEncoder().encode(`sealtide-gw-sig-v1\0bump\0${bumped}`);
  const good = await crypto.subtle.verify({ name: 'Ed25519' }, key, bytesOf(data.signature), message);
  return good ? 'verified' : 'not verified';
}

async function token(base) {
  const answer = await fetch(`${base}/api/auth/csrf-token?purpose=ws`);
  if (answer.status !== 200) throw new Error(`token: ${answer.status}`);
  return (await answer.json()).token;
}

/// Tells what happened; the test says what should have.
export async function story({ base, Socket, pinned }) {
  const url = `${base.replace('http', 'ws')}/version/ws`;
  const enter = async (names) => {
    const one = await token(base);
    const session = new Session(Socket, url, [...names, `tes-token.${one}`]);
    return { session, one, protocol: await session.opened };
  };
  const version = (text) => JSON.parse(text).entities.find((entity) => entity.id === 'component:sample').currentVersion;

  const reader = await enter(['tes-ui-v2', 'tes-ui-v1']);
  const bumper = await enter(['tes-ui-v1']);
  const pong = await reader.session.ask({ type: 'ping' });
  const before = version(await reader.session.ask({ type: 'refresh' }));
  // Live: one bumps, and the other is told without asking.
  const answer = await bumper.session.ask({ type: 'bump', entityId: 'component:sample', cascade: false, crypto: 'ed25519' });
  const change = JSON.parse(await reader.session.text());
  const refreshed = await reader.session.ask({ type: 'refresh' });
  const forged = answer.replace(/"currentVersion":"[^"]*"/, '"currentVersion":"9.9.9"');

  const replay = new Session(Socket, url, ['tes-ui-v1', `tes-token.${reader.one}`]);
  const replayed = await replay.opened.then(() => 'opened', () => 'refused');
  bumper.session.socket.close(1000, 'done');
  return {
    protocols: [reader.protocol, bumper.protocol],
    pong,
    before,
    change: { type: change.type, to: change.changes[0].newVersion },
    after: version(refreshed),
    algorithm: JSON.parse(answer).data.alg,
    badges: { pinned: await badge(answer, pinned), unpinned: await badge(answer, null), forged: await badge(forged, pinned) },
    replayed,
    closed: await bumper.session.closed,
  };
}
