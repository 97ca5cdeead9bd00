/** Codes of every error Fovea throws; stable across releases, meant to be switched on. */
export type ErrorCode =
  | 'ERR_ARGUMENT'
  | 'ERR_SHAPE'
  | 'ERR_DTYPE'
  | 'ERR_DEVICE'
  | 'ERR_OOM'
  | 'ERR_INDEX'
  | 'ERR_DISPOSED'
  | 'ERR_AUTOGRAD'
  | 'ERR_ABORTED'
  | 'ERR_MASK_SYNTAX'
  | 'ERR_MASK_INDEX'
  | 'ERR_FILE_FORMAT'
  | 'ERR_NATIVE'
  | 'ERR_UNSUPPORTED'
  | 'ERR_INTERNAL';

/** The one error class of the library: `code` says what kind, `message` says what was got, what was expected and what to do. */
export class FoveaError extends Error {
  /** What kind of error it is, to switch on. */
  readonly code: ErrorCode;

  constructor(code: ErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = 'FoveaError';
    this.code = code;
  }
}
