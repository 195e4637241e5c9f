// The store's one compression. The decoder that zarrita brings makes functions of strings, which the page's policy forbids.
import {registry} from 'zarrita';
import {ZSTDDecoder} from 'zstddec';

const decoder = new ZSTDDecoder();

class Zstd {
  static fromConfig() {
    return new Zstd();
  }

  kind = 'bytes_to_bytes';

  async decode(bytes) {
    await decoder.init();
    const decoded = decoder.decode(bytes);
    // Of damaged bytes, among them those with a wrong checksum, nothing comes out.
    if (!decoded.length) throw new Error('a chunk is damaged; `landcover verify` finds it');
    return decoded;
  }
}

/** A function that decodes bytes at once. */
export async function decoded() {
  await decoder.init();
  return (bytes) => decoder.decode(bytes);
}

registry.set('zstd', async () => Zstd);
