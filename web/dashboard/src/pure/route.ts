/** Where in the page somebody is: the part of the address behind `#`. Every piece is percent-encoded by itself. */

/** A page, and what of it. */
export type Route =
  | { page: 'overview' }
  | { page: 'files'; space: string; under: string }
  | { page: 'file'; space: string; path: string }
  | { page: 'conflict'; space: string; path: string }
  | { page: 'links'; peer: string }
  | { page: 'sagas' }
  | { page: 'releases'; app: string }
  | { page: 'keys' }
  | { page: 'audit'; seq: number | null };

const piece = encodeURIComponent;

/** The address of a route, with its `#`. */
export function hrefOf(route: Route): string {
  switch (route.page) {
    case 'files':
    case 'file':
    case 'conflict': {
      const path = route.page === 'files' ? route.under : route.path;
      const parts = [route.space, ...path.split('/')].filter((part) => part !== '').map(piece);
      return `#/${[route.page, ...parts].join('/')}`;
    }
    case 'links':
      return route.peer ? `#/links/${piece(route.peer)}` : '#/links';
    case 'releases':
      return route.app ? `#/releases/${piece(route.app)}` : '#/releases';
    case 'audit':
      return route.seq === null ? '#/audit' : `#/audit/${route.seq}`;
    default:
      return `#/${route.page}`;
  }
}

/** The route of an address; what is not understood is the overview. */
export function routeOf(hash: string): Route {
  const parts = hash.replace(/^#?\/?/, '').split('/').filter((part) => part !== '').map(decode);
  const [page = 'overview', first = '', ...rest] = parts;
  switch (page) {
    case 'files':
      return { page, space: first, under: rest.join('/') };
    case 'file':
    case 'conflict':
      return first && rest.length ? { page, space: first, path: rest.join('/') } : { page: 'files', space: first, under: '' };
    case 'links':
      return { page, peer: first };
    case 'releases':
      return { page, app: first };
    case 'audit':
      return { page, seq: /^\d{1,15}$/.test(first) ? Number(first) : null };
    case 'sagas':
    case 'keys':
      return { page };
    default:
      return { page: 'overview' };
  }
}

/** The one-time code of a link that the node printed: `#code=…`; null when there is none. */
export function codeOf(hash: string): string | null {
  return /^#code=([A-Za-z0-9_-]{1,256})$/.exec(hash)?.[1] ?? null;
}

function decode(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}
