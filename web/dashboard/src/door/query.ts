/** What a part of the page shows of the node: asked once, and again whenever the node says that it changed. */
import { useCallback, useEffect, useRef, useState } from 'preact/hooks';
import { Turns, type Turn } from '../pure/turns.js';
import { ask, Refusal } from './call.js';
import { hear } from './live.js';
import type { NodeRequest } from './requests.js';

/** An answer, as far as it is there. A newer answer replaces it; a failure leaves it and says so. */
export interface Query<T> {
  data: T | null;
  error: Refusal | null;
  again: () => void;
}

/**
 * Asks `request` and keeps the answer fresh.
 *
 * @param request nothing is asked while it is null
 * @param topics what it depends on; one that ends with `:` stands for all that begin so
 */
export function useQuery<T>(request: NodeRequest | null, topics: readonly string[]): Query<T> {
  return useFresh<T>(request ? JSON.stringify(request) : null, topics, () => ask<T>(request!));
}

/** The same for what is no call of the node. `key` says what is asked. */
export function useFresh<T>(key: string | null, topics: readonly string[], fetchIt: () => Promise<T>): Query<T> {
  const [state, setState] = useState<{ key: string | null; data: T | null; error: Refusal | null }>({ key: null, data: null, error: null });
  const asking = useRef<{ key: string; again: boolean } | null>(null);
  const latest = useRef(fetchIt);
  const current = useRef(key);
  latest.current = fetchIt;
  current.current = key;

  const again = useCallback(() => {
    const wanted = current.current;
    if (wanted === null) return;
    if (asking.current?.key === wanted) {
      // It may have changed behind the answer that is under way.
      asking.current.again = true;
      return;
    }
    const mine = { key: wanted, again: false };
    asking.current = mine;
    const end = (result: { data: T } | { error: Refusal }): void => {
      if (asking.current === mine) asking.current = null;
      if (current.current !== wanted) return;
      setState((before) => ({ key: wanted, data: before.key === wanted ? before.data : null, error: null, ...result }));
      if (mine.again) again();
    };
    latest.current().then((data) => end({ data }), (error: unknown) => end({ error: asRefusal(error) }));
  }, []);

  useEffect(() => {
    again();
    return () => {
      asking.current = null;
    };
  }, [key]);
  const names = topics.join(' ');
  useEffect(() => hear((changed) => concerns(changed, names.split(' ')) && again()), [names]);
  const isCurrent = state.key === key;
  return { data: isCurrent ? state.data : null, error: isCurrent ? state.error : null, again };
}

/**
 * Fetches of a long list, until nobody looks any more. `fetchIt` must rest on nothing that changes while the list is shown: give the list
 * a `key`.
 *
 * @param first what is fetched at once
 */
export function useTurns(fetchIt: (turn: Turn, list: Turns) => Promise<void>, first: Turn, setError: (error: Refusal | null) => void): Turns {
  const turns = useRef<Turns | null>(null);
  const list = (turns.current ??= new Turns(
    async (turn) => {
      await fetchIt(turn, list);
      if (!list.isOver) setError(null);
    },
    (error) => setError(asRefusal(error)),
  ));
  useEffect(() => {
    void list.take(first);
    return () => {
      list.isOver = true;
    };
  }, []);
  return list;
}

/** Whether what changed is among what is wanted. */
export function concerns(changed: ReadonlySet<string> | 'all', wanted: readonly string[]): boolean {
  if (changed === 'all') return true;
  return wanted.some((topic) => (topic.endsWith(':') ? [...changed].some((name) => name.startsWith(topic)) : changed.has(topic)));
}

/** Any failure, in the words of a refusal. */
export function asRefusal(error: unknown): Refusal {
  return error instanceof Refusal ? error : new Refusal(0, 'failed', error instanceof Error ? error.message : String(error));
}
