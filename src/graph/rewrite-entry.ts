/** What one rule did, or why it did not, at one place. */
export interface RewriteEntry {
  readonly rule: string;
  readonly at: string;
  readonly applied: boolean;
  readonly reason: string;
}
