/** What was just done or failed. A change names the line of the audit that tells of it. */
import { hrefOf } from '../pure/route.js';
import { dismiss, toasts } from '../state.js';
import { Act, Hint, State } from './basic.js';

/** They are read aloud as they come. */
export function Toasts() {
  return (
    <div class="toasts" role="status" aria-live="polite">
      {toasts.value.map((toast) => (
        <div class={`toast ${toast.tone}`} key={toast.id}>
          <div>
            <State tone={toast.tone}>{toast.text}</State>
            {toast.hint && <p class="dim"><Hint text={toast.hint} /></p>}
            {toast.audit !== null && <a href={hrefOf({ page: 'audit', seq: toast.audit })}>Audit line {toast.audit}</a>}
          </div>
          <Act look="quiet" label="Dismiss" onClick={() => dismiss(toast.id)}>✕</Act>
        </div>
      ))}
    </div>
  );
}
