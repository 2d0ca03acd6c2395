"""Watches a page while a widget comes: when what is painted, and what moves afterwards."""

# Called with selectors by name. A moment has come when the frame that shows such an element has
# been painted: a message sent from within that frame's animation callbacks arrives right after.
# Shifts are the browser's own entries; those of elements inside an Explorer count from the moment
# "frame" on, or from the beginning where there is none.
RECORDER = """
moments => {
  const seen = {};
  const shifts = [];
  let start = null;
  const afterFrame = (callback) => requestAnimationFrame(() => {
    const channel = new MessageChannel();
    channel.port1.onmessage = callback;
    channel.port2.postMessage(null);
  });
  const pending = new Set(Object.keys(moments));
  const look = () => {
    for (const name of pending) {
      if (document.querySelector('.jp-OutputArea-output ' + moments[name])) {
        pending.delete(name);
        afterFrame(() => { seen[name] = performance.now() - start; });
      }
    }
  };
  new MutationObserver(look).observe(document.body,
    {subtree: true, childList: true, attributes: true, characterData: true});
  window.addEventListener('keydown', (event) => {
    if (event.isTrusted && event.key === 'Enter') start ??= event.timeStamp;
  }, true);
  const session = window.notebookDriver.panel.sessionContext;
  session.iopubMessage.connect((_, message) => {
    if (message.header.msg_type === 'status' && message.content.execution_state === 'idle'
        && message.parent_header.msg_type === 'execute_request' && start !== null) {
      seen.cell ??= performance.now() - start;
    }
  });
  const corners = ({x, y, width, height}) => [x, y, width, height].map(Math.round).join();
  const describe = (node) => node.nodeType !== 1 ? node.nodeName
    : `${node.localName}.${node.getAttribute('class') ?? ''}`;
  new PerformanceObserver((list) => {
    for (const entry of list.getEntries()) {
      const sources = entry.sources.filter(({node}) => node
        && (node.nodeType === 1 ? node : node.parentElement)?.closest('.qw-explorer'));
      if (!sources.length || start === null) continue;
      if (moments.frame && !(entry.startTime - start > seen.frame)) continue;
      shifts.push({at: Math.round(entry.startTime - start), value: entry.value,
        what: sources.map(({node, previousRect, currentRect}) =>
          `${describe(node)} ${corners(previousRect)} -> ${corners(currentRect)}`)});
    }
  }).observe({type: 'layout-shift', buffered: true});
  window.paintRecorder = {seen, report: () => ({seen, shifts})};
}
"""
