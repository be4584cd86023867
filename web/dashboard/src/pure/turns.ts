/** What a long list fetches: what is new, or the page behind what is there. */
export type Turn = 'fresh' | 'next';

/**
 * Fetches of one list, one after the other, so that no row comes twice. What is asked for meanwhile is done once afterwards, what is new
 * first; a failure drops the next page, which is asked for again when somebody scrolls.
 */
export class Turns {
  /** Nobody looks any more. */
  isOver = false;
  #isBusy = false;
  readonly #waiting = new Set<Turn>();
  readonly #fetch: (turn: Turn) => Promise<void>;
  readonly #failed: (error: unknown) => void;

  constructor(fetch: (turn: Turn) => Promise<void>, failed: (error: unknown) => void) {
    [this.#fetch, this.#failed] = [fetch, failed];
  }

  /** Asks for a turn. */
  async take(turn: Turn): Promise<void> {
    this.#waiting.add(turn);
    if (this.#isBusy) return;
    this.#isBusy = true;
    while (this.#waiting.size > 0 && !this.isOver) {
      const now = this.#waiting.has('fresh') ? 'fresh' : 'next';
      this.#waiting.delete(now);
      try {
        await this.#fetch(now);
      } catch (error) {
        this.#waiting.delete('next');
        if (!this.isOver) this.#failed(error);
      }
    }
    this.#isBusy = false;
  }
}
