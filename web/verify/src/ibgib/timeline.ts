import { Refused } from '../refused.js';
import { readRecord, type VerifiedRecord } from './record.js';

/**
 * Checks the frames of one timeline, oldest first and none left out: the first one is the first frame, each of the others names it,
 * has the frame before it as its last past, and counts one more. A frame whose past holds more than one line (a merge) is taken when
 * its last past frame is the one before it. Spec: ibgib §1.4, §12.2.2.
 *
 * @throws Refused `bad_timeline`, `bad_n`, and what `readRecord` throws
 */
export function verifyTimeline(encoded: Iterable<Uint8Array>): VerifiedRecord[] {
  const frames: VerifiedRecord[] = [];
  for (const bytes of encoded) {
    const record = readRecord(bytes);
    checkNext(frames, record);
    frames.push(record);
  }
  if (frames.length === 0) throw new Refused('bad_timeline', 'a timeline has a first frame');
  return frames;
}

function checkNext(frames: readonly VerifiedRecord[], record: VerifiedRecord): void {
  const { address, frame } = record;
  const wrong = (what: string): Refused => new Refused('bad_timeline', `${address}: ${what}`);
  if (!frame) throw wrong('it is in no timeline');
  const [first, before] = [frames[0], frames.at(-1)];
  if (!first || !before) {
    if (frame.tjp !== address) throw wrong('it is not the first frame of its timeline');
    return;
  }
  if (frame.tjp !== first.address) throw wrong('it is in another timeline');
  if (frame.past.at(-1) !== before.address) throw wrong('it does not follow the frame before it');
  if (frame.n !== before.frame!.n + 1) throw new Refused('bad_n', `${address}: its number is ${frame.n}, behind ${before.frame!.n}`);
}
