/**
 * The text of one member at the top of a JSON object, as it stands there: cut out, never written again, for it is what was signed.
 * `undefined` for a text that is no JSON object, and for a member that is missing or stands there twice. Spec: gateway §7.3.
 */
export function memberText(json: string, name: string): string | undefined {
  try {
    JSON.parse(json);
  } catch {
    return undefined;
  }
  // From here on the text is JSON, so brackets and quotes balance.
  let at = skipSpace(json, 0);
  if (json[at] !== '{') return undefined;
  let found: string | undefined;
  at = skipSpace(json, at + 1);
  while (json[at] !== '}') {
    const nameEnd = skipString(json, at);
    const isWanted = (JSON.parse(json.slice(at, nameEnd)) as string) === name;
    const begin = skipSpace(json, skipSpace(json, nameEnd) + 1);
    const end = skipValue(json, begin);
    if (isWanted && found !== undefined) return undefined;
    if (isWanted) found = json.slice(begin, end);
    at = skipSpace(json, end);
    if (json[at] === ',') at = skipSpace(json, at + 1);
  }
  return found;
}

function skipSpace(json: string, from: number): number {
  let at = from;
  while (' \t\n\r'.includes(json[at] ?? '-')) at++;
  return at;
}

function skipString(json: string, from: number): number {
  let at = from + 1;
  while (json[at] !== '"') at += json[at] === '\\' ? 2 : 1;
  return at + 1;
}

function skipValue(json: string, from: number): number {
  if (json[from] === '"') return skipString(json, from);
  let [at, depth] = [from, 0];
  for (; at < json.length; at++) {
    const letter = json[at]!;
    if (letter === '"') at = skipString(json, at) - 1;
    else if (letter === '{' || letter === '[') depth++;
    else if (depth === 0 && ',]} \t\n\r'.includes(letter)) return at;
    else if ((letter === '}' || letter === ']') && --depth === 0) return at + 1;
  }
  return at;
}
