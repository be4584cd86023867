/** A ticket for another node: as text to copy, and as a QR code. */
import { useState } from 'preact/hooks';
import type { Space } from '../door/documents.js';
import { type Refusal } from '../door/call.js';
import { asRefusal } from '../door/query.js';
import { changes } from '../door/requests.js';
import { Act, Command, Failed, When } from '../parts/basic.js';
import { Modal, performed } from '../parts/dialog.js';

interface Ticket {
  ticket: string;
  space: string;
  role: string;
  expires: string;
  uses: number;
}

const LIVES: [label: string, seconds: number][] = [['one hour', 3_600], ['one day', 86_400], ['one week', 604_800]];

/** The button, and the dialog behind it. */
export function TicketButton({ spaces }: { spaces: Space[] }) {
  const [open, setOpen] = useState(false);
  const own = spaces.filter((space) => space.role === 'admin');
  return (
    <>
      <Act look="main" needs="admin" disabled={own.length ? null : 'only an admin of a space can invite to it'} onClick={() => setOpen(true)}>Open a ticket</Act>
      {open && <TicketDialog spaces={own} onClose={() => setOpen(false)} />}
    </>
  );
}

function TicketDialog({ spaces, onClose }: { spaces: Space[]; onClose: () => void }) {
  const [made, setMade] = useState<(Ticket & { image: string }) | null>(null);
  const [error, setError] = useState<Refusal | null>(null);
  const make = async (event: SubmitEvent): Promise<void> => {
    event.preventDefault();
    const form = new FormData(event.target as HTMLFormElement);
    const text = (name: string): string => String(form.get(name));
    setError(null);
    try {
      const ticket = await performed<Ticket>(changes.ticket(text('space'), text('role'), Number(text('life')), Number(text('uses'))), 'The ticket is open.');
      const { renderSVG } = await import('uqr');
      setMade({ ...ticket, image: `data:image/svg+xml,${encodeURIComponent(renderSVG(ticket.ticket, { ecc: 'L', border: 3 }))}` });
    } catch (failure) {
      setError(asRefusal(failure));
    }
  };
  return (
    <Modal title={made ? `A ticket for ${made.space}` : 'Invite another node'} onClose={onClose}>
      {made ? (
        <div class="dialog-body">
          <p>On the other machine. Treat it like a password: who has it first is in, with the role {made.role}.</p>
          <Command text={`sealtide join ${made.ticket} DIR`} />
          <img class="qr" src={made.image} alt="The ticket as a QR code" width="260" height="260" />
          <p class="dim">Ends <When time={made.expires} />, good for {made.uses === 1 ? 'one node' : `${made.uses} nodes`}.</p>
          <div class="dialog-foot"><Act look="main" onClick={onClose}>Done</Act></div>
        </div>
      ) : (
        <form class="dialog-body" onSubmit={(event) => void make(event)}>
          <label>Space<select name="space">{spaces.map((space) => <option key={space.id}>{space.name}</option>)}</select></label>
          <label>
            The other node may
            <select name="role">
              <option value="write">read and write</option>
              <option value="read">only read</option>
              <option value="admin">do everything, invite others too</option>
            </select>
          </label>
          <label>Good for<select name="life">{LIVES.map(([label, seconds]) => <option key={label} value={seconds} selected={seconds === 86_400}>{label}</option>)}</select></label>
          <label>Nodes that may use it<input name="uses" type="number" min="1" max="1000" value="1" required /></label>
          <Failed error={error} />
          <div class="dialog-foot">
            <Act onClick={onClose}>Leave it</Act>
            <button type="submit" class="act main">Open the ticket</button>
          </div>
        </form>
      )}
    </Modal>
  );
}
