/** Checks a bundle in this page: the verifier shares no code with the node, and asks it for nothing but bytes. */
import { useState } from 'preact/hooks';
import { at, fetched, Refusal } from '../door/call.js';
import type { ReleaseRow } from '../door/documents.js';
import { asRefusal } from '../door/query.js';
import { Act, Failed, State } from '../parts/basic.js';
import { Modal } from '../parts/dialog.js';
import { bytes, counted } from '../pure/format.js';

/** Bytes of the head of a bundle, at most. */
const HEAD_BYTES_MAX = 16 * 1024 * 1024;

interface Outcome {
  files: number;
  size: number;
  app: string;
  version: string;
  channel: string;
  byOwn: boolean;
  seconds: number;
}

/** @param row which release of `app` */
export function VerifyPart({ app, row, onClose }: { app: string; row: ReleaseRow; onClose: () => void }) {
  const [trust, setTrust] = useState<File | null>(null);
  const [state, setState] = useState<'asked' | 'working' | Outcome | Refusal>('asked');
  const verify = async (): Promise<void> => {
    setState('working');
    try {
      setState(await verified(app, row, trust));
    } catch (failure) {
      setState(asRefusal(failure));
    }
  };
  return (
    <Modal title={`Verify ${app} ${row.version}`} onClose={onClose}>
      <div class="dialog-body">
        <p>The bundle is fetched and checked in this browser: both signatures, the chain of keys, every file.</p>
        <label
          class="drop"
          onDragOver={(event) => event.preventDefault()}
          onDrop={(event) => { event.preventDefault(); setTrust(event.dataTransfer?.files[0] ?? null); setState('asked'); }}
        >
          Your own trust file, if you have one
          <input type="file" onChange={(event) => { setTrust(event.currentTarget.files?.[0] ?? null); setState('asked'); }} />
          {trust && <span class="dim">{trust.name}</span>}
        </label>
        {!trust && <p class="note"><State tone="warn">Without one, the trust comes from this node itself: that shows that the bundle is whole, and not that the node is honest.</State></p>}
        <div role="status">
          {state === 'working' && <State tone="busy">Checking…</State>}
          {typeof state === 'object' && !(state instanceof Error) && (
            <p class="lead" data-verified="yes">
              <State tone="ok" icon="seal">
                {state.byOwn ? 'Verified against your trust file' : 'Signed and whole; the key is the one this node names'}: {state.app} {state.version} of {state.channel}, {counted(state.files, 'file')}, {bytes(state.size)}, checked in {state.seconds.toFixed(1)} s.
              </State>
            </p>
          )}
        </div>
        {state instanceof Error && <Failed error={state} />}
        <div class="dialog-foot">
          <Act onClick={onClose}>Close</Act>
          <Act look="main" busy={state === 'working'} onClick={() => void verify()}>Verify</Act>
        </div>
      </div>
    </Modal>
  );
}

async function verified(app: string, row: ReleaseRow, own: File | null): Promise<Outcome> {
  const began = performance.now();
  const query = new URLSearchParams({ app });
  const [verifier, trust] = await Promise.all([
    import('@sealtide/verify'),
    own ? own.text() : fetched(at(`api/node/trust?${query}`)).then((answer) => answer.text()),
  ]);
  const bundle = await bundleOf(verifier, app, row);
  const { content, sha256 } = (await verifier.verifyBundle(bundle, trust)).manifest;
  // Authentic is any release of the publisher; it must be the one that was asked for.
  const found = [sha256, content.name, content.version, content.channel, content.seq];
  const asked = [row.manifest, app, row.version, row.channel, row.seq];
  if (found.some((value, place) => value !== asked[place])) throw notOfHead(app, row);
  const seconds = (performance.now() - began) / 1000;
  return { files: content.files.length, size: content.unpackedSize, app: content.name, version: content.version, channel: content.channel, byOwn: own !== null, seconds };
}

/** The bundle of a release. A version that is out in two channels has a second file, which is named by its channel too. */
async function bundleOf({ readBundleHead }: typeof import('@sealtide/verify'), app: string, row: ReleaseRow): Promise<Blob> {
  for (const name of [`${row.version}~${row.channel}`, row.version]) {
    let bundle: Blob;
    try {
      bundle = await (await fetched(at(`bundle/${encodeURIComponent(app)}/${encodeURIComponent(name)}`))).blob();
    } catch (failure) {
      if (failure instanceof Refusal && failure.status === 404 && name !== row.version) continue;
      throw failure;
    }
    const head = readBundleHead(new Uint8Array(await bundle.slice(0, HEAD_BYTES_MAX).arrayBuffer()));
    // One that breaks off within its head is told as what it is.
    if (!head || head.manifest.sha256 === row.manifest) return bundle;
  }
  throw notOfHead(app, row);
}

function notOfHead(app: string, row: ReleaseRow): Refusal {
  const text = `The bundle that the node gives for ${app} ${row.version} of ${row.channel} is that of another release.`;
  return new Refusal(0, 'not_of_head', text, 'Do not install it. Ask the publisher which release is the right one.');
}
