// The Export menu: pictures and numbers of each panel, written by the browser alone.

import { fitFigures } from "./bqplot";
import { h } from "./dom";
import { pictureOf, pixelsOf, sourceOf } from "./picture";
import { csv, type Table } from "./readings";

/** Something that can be saved. */
export interface Exportable {
  /** Of the file, without ending. */
  name: string;
  title: string;
  element: HTMLElement;
  table: () => Table;
}

export type Scheme = "light" | "dark";
const FORMATS = ["png", "svg", "csv"] as const;
type Format = (typeof FORMATS)[number];
/** Pixels of a PNG to each of the screen's: sharp in print and on fine screens. */
const SCALE = 2;
/** A browser that has not begun to save by then never will. */
const KEPT_MS = 60_000;

let serial = 0;

export class ExportMenu {
  private readonly id = `qw-export-${++serial}`;
  private readonly button = h(
    "button",
    {
      type: "button",
      class: "qw-export",
      "aria-haspopup": "dialog",
      "aria-expanded": "false",
      "aria-controls": this.id,
    },
    "Export ▾",
  );
  private readonly colors = h(
    "select",
    { "aria-label": "Colours of the pictures" },
    h("option", { value: "light" }, "light colours"),
    h("option", { value: "dark" }, "dark colours"),
  );
  private readonly clear = h("input", { type: "checkbox" });
  private readonly told = h("p", { class: "qw-export-told", role: "status" });
  private readonly menu: HTMLElement;
  private readonly rows: HTMLElement[][];
  readonly element: HTMLElement;

  /**
   * @param run Runs an action of the menu; shows what goes wrong in it.
   * @param within Runs `work` while the page has the colours of a scheme, unseen.
   * @param describe The present state in words.
   */
  constructor(
    private readonly parts: readonly Exportable[],
    private readonly run: (action: () => Promise<void>) => void,
    private readonly within: <T>(scheme: Scheme, work: () => T) => T,
    private readonly describe: () => string,
  ) {
    this.rows = parts.map((part) => [
      h("span", {}, part.title),
      ...FORMATS.map((format) => {
        const label = `${part.title} as ${format.toUpperCase()}`;
        const button = h(
          "button",
          { type: "button", class: `qw-save-${part.name}-${format}`, "aria-label": label },
          format.toUpperCase(),
        );
        button.addEventListener("click", () => this.run(() => this.save(part, format)));
        return button;
      }),
    ]);
    this.menu = h(
      "div",
      {
        class: "qw-export-menu",
        id: this.id,
        role: "dialog",
        "aria-label": "Export",
        hidden: true,
      },
      h("div", { class: "qw-export-grid" }, ...this.rows.flat()),
      h(
        "div",
        { class: "qw-export-options" },
        this.colors,
        h("label", {}, this.clear, " transparent"),
      ),
      this.told,
    );
    this.element = h("div", { class: "qw-export-place qw-screen-only" }, this.button, this.menu);
    this.button.addEventListener("click", () => (this.menu.hidden ? this.open() : this.close()));
    this.element.addEventListener("keydown", (event) => {
      if (event.key !== "Escape" || this.menu.hidden) return;
      event.stopPropagation();
      this.close();
      this.button.focus();
    });
    document.addEventListener("pointerdown", this.onOutside);
  }

  dispose(): void {
    document.removeEventListener("pointerdown", this.onOutside);
  }

  private readonly onOutside = (event: PointerEvent) => {
    if (!event.composedPath().includes(this.element)) this.close();
  };

  private open(): void {
    this.told.textContent = "";
    this.parts.forEach((part, i) => {
      for (const cell of this.rows[i] as HTMLElement[]) cell.hidden = isAway(part);
    });
    this.menu.hidden = false;
    const [r = 0, g = 0, b = 0] = getComputedStyle(this.menu).backgroundColor.match(/\d+/g) ?? [];
    this.colors.value = Number(r) + Number(g) + Number(b) < 384 ? "dark" : "light";
    this.button.setAttribute("aria-expanded", "true");
  }

  private close(): void {
    this.menu.hidden = true;
    this.button.setAttribute("aria-expanded", "false");
  }

  private async save(part: Exportable, format: Format): Promise<void> {
    const file = `qwidgets-${part.name}.${format}`;
    const blob = format === "csv" ? this.numbers(part) : await this.picture(part, format);
    if (blob) download(blob, file);
    this.told.textContent = blob ? `Saved ${file}` : "Nothing is measured yet: no numbers to save";
  }

  /** A table as a file; null where there are no numbers. */
  private numbers(part: Exportable): Blob | null {
    let table = part.table();
    if (!table.rows.length) {
      // Everything, without a figure: the other panels, whose columns are their own.
      const inside = (other: Exportable) => other !== part && part.element.contains(other.element);
      const others = this.parts.filter((other) => inside(other) && !isAway(other));
      table = together(others.map((other) => other.table()));
    }
    return table.rows.length ? new Blob([csv(table)], { type: "text/csv" }) : null;
  }

  private async picture(part: Exportable, format: "png" | "svg"): Promise<Blob> {
    await fitFigures(part.element);
    const scheme = this.colors.value as Scheme;
    const picture = this.within(scheme, () => {
      const color = getComputedStyle(part.element).getPropertyValue("--qw-panel").trim();
      return pictureOf(part.element, this.clear.checked ? null : color, this.describe());
    });
    return format === "png"
      ? pixelsOf(picture, SCALE)
      : new Blob([sourceOf(picture)], { type: "image/svg+xml" });
  }
}

/** Whether these networks have no panel for it, or it is not wanted on the page. */
const isAway = ({ element }: Exportable) => getComputedStyle(element).display === "none";

/** Tables below each other, each in its own columns but for those of the same name. */
function together(tables: readonly Table[]): Table {
  const filled = tables.filter(({ rows }) => rows.length > 0);
  const columns = [...new Set(filled.flatMap((table) => table.columns))];
  const rows = filled.flatMap((table) => {
    const places = columns.map((column) => table.columns.indexOf(column));
    return table.rows.map((row) => places.map((place) => row[place]));
  });
  return { columns, rows };
}

function download(blob: Blob, name: string): void {
  const href = URL.createObjectURL(blob);
  const link = h("a", { href, download: name });
  // Firefox follows only links that are in the page.
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(href), KEPT_MS);
}
