// Which part of the picture this screen asks the gateway for. Pure.

/** Empty: all of them. */
export interface Part {
  agency: string;
  kind: string;
  cell: string;
}

export const EVERYTHING: Part = { agency: '', kind: '', cell: '' };

export function samePart(a: Part, b: Part): boolean {
  return a.agency === b.agency && a.kind === b.kind && a.cell === b.cell;
}

/** As parameters of `GET /api/v1/feed`; a comma in a name would be two names there, and such a name cannot be asked for. */
export function partParameters(part: Part): [string, string][] {
  const all: [string, string][] = [['agency', part.agency], ['kind', part.kind], ['cell', part.cell]];
  return all.filter(([, value]) => value !== '');
}
