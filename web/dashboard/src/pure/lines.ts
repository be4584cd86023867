/** The lines of a long log that only grows, newest first: older ones come by pages, new ones before them. */

/** Lines that stay when new ones come, at most, unless somebody scrolled further back. */
export const LINES_MOST = 10_000;

/** One page of them. */
export interface LinesPage<L> {
  lines: L[];
  /** The number of the last line that was looked at, whether it fits or not. */
  reached: number | null;
  /** Whether there may be more in this direction. */
  more: boolean;
}

/** Where a page begins: back from a line, or with what came since one. Without either: back from the newest. */
export interface LinesFrom {
  before?: number;
  since?: number;
}

/** What is loaded of them. */
export class Lines<L> {
  /** Null until the first page came. */
  rows: readonly L[] | null = null;
  /** Whether there may be older ones. */
  more = true;
  #newest = 0;
  #oldest: number | undefined;
  readonly #page: (from: LinesFrom) => Promise<LinesPage<L>>;
  readonly #numberOf: (line: L) => number;

  /** @param last the newest line that is wanted; null for the newest that there is */
  constructor(last: number | null, page: (from: LinesFrom) => Promise<LinesPage<L>>, numberOf: (line: L) => number) {
    [this.#page, this.#numberOf] = [page, numberOf];
    this.#oldest = last === null ? undefined : last + 1;
  }

  /** Loads what is older, page after page until something fits: a filter may let nothing through for a long way. */
  async next(isOver: () => boolean, told: () => void): Promise<void> {
    for (let found = 0; this.more && !found && !isOver(); ) {
      const page = await this.#page(this.#oldest === undefined ? {} : { before: this.#oldest });
      found = page.lines.length;
      this.#newest ||= page.lines[0] ? this.#numberOf(page.lines[0]) : (page.reached ?? 0);
      this.#oldest = page.reached ?? this.#oldest;
      this.more = page.more;
      this.rows = [...(this.rows ?? []), ...page.lines];
      told();
    }
  }

  /** Loads what came since. While nothing is loaded nobody knows since when: then the newest page. */
  async fresh(isOver: () => boolean, told: () => void): Promise<void> {
    if (!this.rows) return this.next(isOver, told);
    for (let more = true; more && !isOver(); ) {
      const page = await this.#page({ since: this.#newest });
      more = page.more;
      this.#newest = page.reached ?? this.#newest;
      if (page.lines.length > 0) this.#put(page.lines);
      told();
    }
  }

  #put(lines: readonly L[]): void {
    const fresh = [...lines].sort((a, b) => this.#numberOf(b) - this.#numberOf(a));
    const before = this.rows ?? [];
    const all = [...fresh, ...before];
    this.rows = all.slice(0, Math.max(LINES_MOST, before.length));
    if (this.rows.length === all.length) return;
    // What goes at the end comes again when somebody scrolls there.
    this.#oldest = this.#numberOf(this.rows.at(-1)!);
    this.more = true;
  }
}
