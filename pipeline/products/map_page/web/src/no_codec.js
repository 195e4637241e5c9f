// Stands for codecs that the store does not have: see zstd.js.
export default undefined;
