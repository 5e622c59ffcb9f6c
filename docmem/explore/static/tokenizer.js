// Byte-level BPE, as the tokenizers library computes it for the embedded LM.
//
//   text → special tokens cut out → NFC → words → UTF-8 bytes, each one letter → merges → ids

// GPT-2's words. Unicode's White_Space, since JavaScript's \s has another opinion of U+FEFF.
const WORD = new RegExp(
  String.raw`'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\p{White_Space}\p{L}\p{N}]+` +
    String.raw`|\p{White_Space}+(?!\P{White_Space})|\p{White_Space}+`,
  "gu",
);

/** One visible letter for each byte: its own where it has one, else the next from U+0100 on. */
function byteLetters() {
  let next = 256;
  const visible = (byte) => (byte > 32 && byte < 127) || (byte > 160 && byte !== 173);
  return Array.from({ length: 256 }, (_, byte) =>
    String.fromCharCode(visible(byte) ? byte : next++),
  );
}

/** A word's letters, with the pair of lowest rank joined, leftmost first, until none is left. */
function merge(letters, ranks) {
  const parts = [...letters];
  const joined = (at) => (at + 1 < parts.length ? `${parts[at]} ${parts[at + 1]}` : "");
  const rank = (at) => ranks.get(joined(at)) ?? Infinity; // of a part with the one after it
  const found = parts.map((_, at) => rank(at));
  for (;;) {
    let best = 0;
    for (let at = 1; at < found.length; at++) if (found[at] < found[best]) best = at;
    if (!(found[best] < Infinity)) return parts;
    parts.splice(best, 2, parts[best] + parts[best + 1]);
    found.splice(best + 1, 1);
    found[best] = rank(best);
    if (best > 0) found[best - 1] = rank(best - 1);
  }
}

/** Cuts a text before and after each special token, the longest where several fit. */
function cutter(specials) {
  const escaped = [...specials]
    .sort((one, other) => other.length - one.length)
    .map((token) => token.replace(/[\\^$.*+?()[\]{}|]/g, "\\$&"));
  return escaped.length ? new RegExp(`(${escaped.join("|")})`, "u") : /(?!)/;
}

/**
 * @typedef {{vocab: Record<string, number>, merges: [string, string][],
 *   special: Record<string, number>}} TokenizerParts
 * @param {TokenizerParts} parts tokens, merges by rank, and special tokens, with their ids
 * @returns {{encode: (text: string) => number[],
 *   decode: (ids: Iterable<number>, withSpecial?: boolean) => string}}
 */
export function makeTokenizer({ vocab, merges, special }) {
  const ranks = new Map(merges.map(([left, right], rank) => [`${left} ${right}`, rank]));
  const ids = new Map(Object.entries(vocab));
  const specialIds = new Map(Object.entries(special));
  const tokens = new Map([...ids, ...specialIds].map(([token, id]) => [id, token]));
  const letters = byteLetters();
  const bytes = new Map(letters.map((letter, byte) => [letter, byte]));
  const hidden = new Set(specialIds.values());
  const cuts = cutter(specialIds.keys());

  const encodeWord = (word) => {
    const spelt = Array.from(new TextEncoder().encode(word), (byte) => letters[byte]);
    return merge(spelt, ranks).map((part) => ids.get(part));
  };
  const encodePiece = (piece) =>
    specialIds.has(piece)
      ? [specialIds.get(piece)]
      : (piece.normalize("NFC").match(WORD) ?? []).flatMap(encodeWord);

  return {
    encode: (text) => text.split(cuts).flatMap(encodePiece),
    decode: (given, withSpecial = true) => {
      const shown = [...given].filter((id) => withSpecial || !hidden.has(id));
      const spelt = shown.map((id) => tokens.get(id)).join("");
      const utf8 = Uint8Array.from(spelt, (letter) => bytes.get(letter));
      return new TextDecoder("utf-8", { ignoreBOM: true }).decode(utf8);
    },
  };
}
