/** Questions before something is changed: the effect is shown, then asked for, then told with its line in the audit. */
import { signal } from '@preact/signals';
import { useLayoutEffect, useRef, useState } from 'preact/hooks';
import type { ComponentChildren } from 'preact';
import { change, Refusal } from '../door/call.js';
import { asRefusal } from '../door/query.js';
import type { NodeRequest } from '../door/requests.js';
import { tell } from '../state.js';
import { Act, Failed } from './basic.js';

/** A question. */
export interface Question {
  title: string;
  /** What would happen; may ask the node first. */
  body: ComponentChildren;
  /** The word on the button that does it. */
  does: string;
  danger?: boolean;
  /** Does it; what it throws is shown in the dialog. */
  run: () => Promise<void>;
}

const asked = signal<Question | null>(null);

/** Asks. */
export function question(it: Question): void {
  asked.value = it;
}

/** Makes a change and tells of it; gives its answer, or null where it failed, which is told too. */
export async function perform<T>(request: NodeRequest, done: string | ((result: T) => string)): Promise<T | null> {
  try {
    return await performed<T>(request, done);
  } catch (error) {
    const { message, hint } = asRefusal(error);
    tell({ tone: 'bad', text: message, hint, audit: null });
    return null;
  }
}

/** Makes a change and tells of it. Throws a refusal. */
export async function performed<T>(request: NodeRequest, done: string | ((result: T) => string)): Promise<T> {
  const { result, audit } = await change<T>(request);
  tell({ tone: 'ok', text: typeof done === 'string' ? done : done(result), hint: null, audit });
  return result;
}

/** A window above the page: Escape, the first button and another page close it, and the focus goes back. */
export function Modal(props: { title: string; children: ComponentChildren; onClose: () => void; wide?: boolean }) {
  const dialog = useRef<HTMLDialogElement>(null);
  // With the change of the document, not after it: the focus is never nowhere.
  useLayoutEffect(() => {
    const element = dialog.current!;
    const opener = document.activeElement;
    element.showModal();
    // A browser may close it without asking.
    const closed = (): void => props.onClose();
    element.addEventListener('close', closed);
    // What is asked belongs to its page.
    addEventListener('hashchange', closed);
    return () => {
      element.removeEventListener('close', closed);
      removeEventListener('hashchange', closed);
      element.close();
      if (opener instanceof HTMLElement) opener.focus();
    };
  }, []);
  return (
    <dialog ref={dialog} class={props.wide ? 'wide' : ''} aria-labelledby="dialog-title" onCancel={(event) => { event.preventDefault(); props.onClose(); }}>
      <h2 id="dialog-title">{props.title}</h2>
      {props.children}
    </dialog>
  );
}

/** The dialog of {@link question}. */
export function Questions() {
  const it = asked.value;
  return it && <Asked key={it.title} it={it} />;
}

function Asked({ it }: { it: Question }) {
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<Refusal | null>(null);
  const close = (): void => {
    if (!busy) asked.value = null;
  };
  const run = async (): Promise<void> => {
    setBusy(true);
    setError(null);
    try {
      await it.run();
      asked.value = null;
    } catch (failure) {
      setError(asRefusal(failure));
      setBusy(false);
    }
  };
  return (
    <Modal title={it.title} onClose={close}>
      <div class="dialog-body">{it.body}</div>
      <Failed error={error} />
      <div class="dialog-foot">
        <Act onClick={close} look="plain">Leave it</Act>
        <Act onClick={() => void run()} look={it.danger ? 'danger' : 'main'} busy={busy}>{busy ? 'Working…' : it.does}</Act>
      </div>
    </Modal>
  );
}
