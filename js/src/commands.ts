// Requests to the kernel that are repeated until it has acted.

import type { Request } from "./contract";

/** Right after a page was reloaded, a notebook may lose messages while it connects its widgets anew.
 * So a request is sent again until `settle` says that the kernel has acted: all may come twice. */
const RETRY_MS = 1500;
const RETRIES = 20;

export class Commands {
  private retry: ReturnType<typeof setTimeout> | undefined;

  constructor(private readonly send: (request: Request) => void) {}

  ask(request: Request, tries = 0): void {
    this.settle();
    this.send(request);
    if (tries < RETRIES) this.retry = setTimeout(() => this.ask(request, tries + 1), RETRY_MS);
  }

  settle(): void {
    clearTimeout(this.retry);
  }
}
