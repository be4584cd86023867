/** The only page for somebody who is nobody yet. */
import { useState } from 'preact/hooks';
import logo from '../assets/logo.svg';
import { signIn, type Refusal } from '../door/call.js';
import { asRefusal } from '../door/query.js';
import { Command, Failed, State } from '../parts/basic.js';
import { codeOf } from '../pure/route.js';
import { signInNote, who } from '../state.js';

/** Signs in by a code or a link, or by name and passphrase. */
export function SignInPage() {
  const [error, setError] = useState<Refusal | null>(null);
  const [busy, setBusy] = useState(false);
  const prove = async (proof: Parameters<typeof signIn>[0]): Promise<void> => {
    setBusy(true);
    setError(null);
    try {
      who.value = await signIn(proof);
      signInNote.value = null;
    } catch (failure) {
      const refusal = asRefusal(failure);
      if (refusal.status === 401) {
        refusal.message = 'code' in proof ? 'This code is not known: it was used, or is older than five minutes.' : 'Name or passphrase is wrong.';
      }
      setError(refusal);
    }
    setBusy(false);
  };
  const byCode = (event: SubmitEvent): void => {
    event.preventDefault();
    const typed = fieldOf(event, 'code').trim();
    void prove({ code: codeOf(typed.slice(Math.max(0, typed.indexOf('#')))) ?? typed });
  };
  const byPassphrase = (event: SubmitEvent): void => {
    event.preventDefault();
    void prove({ name: fieldOf(event, 'name').trim(), passphrase: fieldOf(event, 'passphrase') });
  };
  return (
    <main class="sign-in">
      <p class="brand"><img src={logo} alt="" width="40" height="40" /><span>Sealtide</span></p>
      <h1>Sign in to this node</h1>
      {signInNote.value && <p class="note" role="alert"><State tone="warn">{signInNote.value}</State></p>}
      <p>On the machine of the node, this prints a link that signs in once:</p>
      <Command text="sealtide gateway code" />
      <form onSubmit={byCode}>
        <label>
          Code, or the whole link
          <input name="code" autocomplete="off" spellcheck={false} required />
        </label>
        <button type="submit" class="act main" disabled={busy}>Sign in</button>
      </form>
      <details>
        <summary>Or with a name and a passphrase</summary>
        <form onSubmit={byPassphrase}>
          <label>Name<input name="name" autocomplete="username" required /></label>
          <label>Passphrase<input name="passphrase" type="password" autocomplete="current-password" required /></label>
          <button type="submit" class="act main" disabled={busy}>Sign in</button>
        </form>
        <p class="dim">Set up with <code>sealtide gateway passphrase NAME --role admin</code> on the machine of the node.</p>
      </details>
      <Failed error={error} />
    </main>
  );
}

function fieldOf(event: SubmitEvent, name: string): string {
  return String(new FormData(event.target as HTMLFormElement).get(name) ?? '');
}
