/* A browser starts no workers for pages that were opened from a disk, and the search is one. There, this runs it in a
   frame that nobody sees, which has the two functions of a worker that it calls. It knows nothing of the search. */
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(address) {
      super()
      const frame = document.createElement("iframe")
      frame.hidden = true
      document.body.appendChild(frame)
      const inside = frame.contentWindow
      const base = new URL(address, document.baseURI)
      const load = from => new Promise((done, failed) => {
        const script = inside.document.createElement("script")
        script.src = new URL(from, base).href
        script.onload = done
        script.onerror = failed
        inside.document.body.appendChild(script)
      })
      inside.importScripts = (...all) => all.reduce((before, one) => before.then(() => load(one)), Promise.resolve())
      inside.postMessage = data => this.dispatchEvent(new MessageEvent("message", {data}))
      this.started = load(base)
      this.frame = frame
    }

    postMessage(data) {
      this.started.then(() => this.frame.contentWindow.dispatchEvent(new MessageEvent("message", {data})))
    }

    terminate() {
      this.frame.remove()
    }
  }
}
