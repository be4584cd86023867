/** Checks a bundle in this page: the verifier shares no code with the node, and asks it for nothing but bytes. */
import { useState } from 'preact/hooks';
import { at, fetched, type Refusal } from '../door/call.js';
import type { ReleaseRow } from '../door/documents.js';
import { asRefusal } from '../door/query.js';
import { Act, Failed, State } from '../parts/basic.js';
import { Modal } from '../parts/dialog.js';
import { bytes, counted } from '../pure/format.js';

interface Outcome {
  files: number;
  size: number;
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
                {state.byOwn ? 'Verified against your trust file' : 'Signed and whole; the key is the one this node names'}: version {state.version} of {state.channel}, {counted(state.files, 'file')}, {bytes(state.size)}, checked in {state.seconds.toFixed(1)} s.
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
  const [{ verifyBundle }, trust, bundle] = await Promise.all([
    import('@sealtide/verify'),
    own ? own.text() : fetched(at(`api/node/trust?${query}`)).then((answer) => answer.text()),
    fetched(at(`bundle/${encodeURIComponent(app)}/${encodeURIComponent(row.version)}`)).then((answer) => answer.blob()),
  ]);
  const { manifest } = await verifyBundle(bundle, trust);
  const { content } = manifest;
  return { files: content.files.length, size: content.unpackedSize, version: content.version, channel: content.channel, byOwn: own !== null, seconds: (performance.now() - began) / 1000 };
}
