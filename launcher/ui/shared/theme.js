// Not a module: it runs before the first paint, so that no page flashes in the wrong colours.
// The choice is 'light', 'dark' or nothing, which is as the system has it.
(() => {
  const choice = () => {
    try {
      return localStorage.getItem('launcher.theme') ?? '';
    } catch { // storage is switched off
      return '';
    }
  };
  const show = () => {
    const theme = choice();
    if (theme === 'light' || theme === 'dark') document.documentElement.dataset.theme = theme;
    else delete document.documentElement.dataset.theme;
  };
  show();
  addEventListener('storage', show); // another tab has chosen
  addEventListener('launcher:theme', show);
})();
