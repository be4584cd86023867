// What the page of a follower runs: it looks when it is told to, and runs `app.js` of what it was given, which says its version.
import { Refused } from '@sealtide/verify';
import { Follower } from '../../examples/follow.js';

/** What happened in the page since it was loaded. */
export interface Told {
  /** Versions that were handed out, in order. */
  installed: string[];
  /** Codes of what was refused, in order. */
  refused: string[];
  /** What scripts of releases said when they ran. */
  ran: string[];
}

const told: Told = { installed: [], refused: [], ran: [] };
const trust = await (await fetch('/trust')).text();
const follower = new Follower('kiosk', 'stable', trust);

async function look(gateway: string): Promise<Told> {
  try {
    const release = await follower.look(gateway);
    if (release) {
      told.installed.push(release.version);
      const script = new Blob([release.files.get('app.js')!], { type: 'text/javascript' });
      await import(URL.createObjectURL(script));
      document.title = new TextDecoder().decode(await release.files.get('version')!.arrayBuffer());
    }
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    told.refused.push(error.code);
  }
  return told;
}

Object.assign(globalThis, { look, ran: told.ran });
